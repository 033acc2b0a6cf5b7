/**
 * Builds the page into the folder that the server embeds: index.html, page.js, page.css, favicon.svg, licences.txt.
 *
 * The same lock file gives the same bytes. The client, `/tickcast.js`, is served as a file of its own and is not part
 * of the bundle. The build fails if a bundled package has no licence text.
 */
import { build } from "esbuild";
import { copyFile, readFile, readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "../../src/http/assets");

const { metafile } = await build({
  absWorkingDir: here,
  entryPoints: { page: "src/main.ts" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  conditions: ["production"],
  alias: { tickcast: "/tickcast.js" },
  external: ["/tickcast.js"],
  charset: "utf8",
  legalComments: "none",
  banner: { js: "/* Generated from clients/page by its build. Licences of what is bundled: /licences.txt */" },
  metafile: true,
});
await build({
  absWorkingDir: here,
  entryPoints: { page: "src/style/page.css" },
  outdir: out,
  bundle: true,
  minify: true,
  target: "es2022",
  charset: "utf8",
});
await copyFile(join(here, "src/favicon.svg"), join(out, "favicon.svg"));
const [page, dialogs] = await Promise.all(["index.html", "dialogs.html"].map(sourceOf));
await writeFile(join(out, "index.html"), page.replace("    <!-- dialogs.html -->\n", () => dialogs));
await writeFile(join(out, "licences.txt"), await licences(Object.keys(metafile.inputs)));

/** The text of a file of `src`. */
function sourceOf(file) {
  return readFile(join(here, "src", file), "utf8");
}

/** The licences of the packages of these files. */
async function licences(files) {
  const names = new Set(files.flatMap((file) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(file)?.[1] ?? []));
  const parts = await Promise.all([...names].sort().map(licenceOf));
  const opening = "The page of a tickcast server contains these open-source libraries. Thanks to all who made them.\n";
  return [opening, ...parts].join(`\n${"=".repeat(80)}\n\n`);
}

/** A package's name, version and licence text: its NOTICE, and its licence file or the text in notices/. */
async function licenceOf(name) {
  const folder = join(here, "node_modules", name);
  const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const own = (await readdir(folder)).find((file) => /^licen[cs]e/i.test(file));
  const texts = own === undefined ? [] : [await readFile(join(folder, own), "utf8")];
  const notice = await readFile(join(here, "notices", `${name.replace("/", "-")}.txt`), "utf8").catch(() => "");
  if (notice !== "") texts.unshift(notice);
  if (texts.length === 0) throw new Error(`${name}: no licence text; put it into notices/`);
  const clean = texts.map((text) => text.replaceAll("\r\n", "\n").trim());
  return `${name} ${version} (${license})\n\n${clean.join("\n\n")}\n`;
}
