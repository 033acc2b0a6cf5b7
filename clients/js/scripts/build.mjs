// Builds the package: the one file that is library and worker, the modules for bundlers, and the adapters. The one file
// is also copied to the folder whose files the server embeds.
import { copyFileSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { build } from "esbuild";
import { minify } from "terser";
import { INTERNAL } from "./internal.mjs";

const at = (path) => new URL(`../${path}`, import.meta.url).pathname;
const common = {
  ...{ bundle: true, format: "esm", target: "es2022", legalComments: "none", logLevel: "warning" },
};
const standalone = (value) => ({ define: { __STANDALONE__: String(value) } });

rmSync(at("dist"), { recursive: true, force: true });
mkdirSync(at("dist"));
await buildOneFile();
await build({
  ...{ ...common, ...standalone(false) },
  entryPoints: [at("src/index.ts"), at("src/worker.ts")],
  outdir: at("dist"),
});
const adapters = readdirSync(at("src/adapters")).map((name) => at(`src/adapters/${name}`));
await build({ ...common, ...standalone(false), entryPoints: adapters, outdir: at("dist/adapters") });
copyFileSync(at("dist/tickcast.js"), at("../../src/http/assets/tickcast.js"));

/**
 * Shortens the internal names: library and worker are one file, so that both sides of a message shorten them alike.
 * terser saves some 350 bytes (gzipped) more than esbuild alone.
 */
async function buildOneFile() {
  const entryPoints = [at("src/standalone.ts")];
  const bundled = await build({ ...common, ...standalone(true), entryPoints, write: false });
  const short = await build({
    ...{ ...common, bundle: false, minify: true, write: false },
    // A field that the constructor assigns need not be declared.
    stdin: { contents: bundled.outputFiles[0].text.replace(/^ {2}(?!return|break|continue)[a-z]\w*;\n/gim, "") },
    mangleProps: new RegExp(`^(${INTERNAL.join("|")})$`),
  });
  const { code } = await minify(short.outputFiles[0].text, {
    ...{ module: true, ecma: 2022, format: { comments: false } },
    compress: { passes: 3, pure_getters: true, unsafe_arrows: true },
  });
  writeFileSync(at("dist/tickcast.js"), code);
}
