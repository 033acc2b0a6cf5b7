// esbuild and tsc. Where the package's own dependencies are not installed, as in a folder that an application installs,
// those of tools/ are: two packages of pinned versions in place of all that the tests need.
import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

/** A path of the package. */
export const at = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));

/** esbuild, and a function that writes the types of a project. */
export function tools() {
  let from = requireOf("package.json");
  if (!has(from)) {
    from = requireOf("scripts/tools/package.json");
    if (!has(from)) install();
  }
  const compiler = from.resolve("typescript/package.json").replace(/package\.json$/, "bin/tsc");
  const compileTypes = (project) => execFileSync(process.execPath, [compiler, "-p", project], { stdio: "inherit" });
  return { esbuild: from("esbuild"), compileTypes };
}

function requireOf(path) {
  return createRequire(at(path));
}

function has(from) {
  try {
    from.resolve("esbuild");
    from.resolve("typescript/package.json");
    return true;
  } catch {
    return false;
  }
}

/** By the npm that runs this script, without scripts of the packages: neither needs its own. */
function install() {
  const args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix", at("scripts/tools")];
  const { npm_execpath: npm, npm_config_global: _, npm_config_prefix: __, npm_config_local_prefix: ___, ...env } = process.env;
  if (npm) execFileSync(process.execPath, [npm, ...args], { env, stdio: "inherit" });
  else execFileSync("npm", args, { env, stdio: "inherit", shell: process.platform === "win32" });
}
