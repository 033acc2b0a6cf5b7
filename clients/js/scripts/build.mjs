// Builds the package: the one file that is library and worker, what bundlers take, and the adapters. The one file is
// also copied to where the server embeds it.
import { copyFileSync, readdirSync, rmSync } from "node:fs";
import { build } from "esbuild";

const at = (path) => new URL(`../${path}`, import.meta.url).pathname;
const common = {
  ...{ bundle: true, format: "esm", target: "es2022", minify: true, legalComments: "none", logLevel: "warning" },
};
const standalone = (value) => ({ define: { __STANDALONE__: String(value) } });

rmSync(at("dist"), { recursive: true, force: true });
await build({
  ...common,
  ...standalone(true),
  entryPoints: [at("src/standalone.ts")],
  outfile: at("dist/tickcast.js"),
});
await build({
  ...{ ...common, ...standalone(false), minify: false },
  entryPoints: [at("src/index.ts"), at("src/worker.ts")],
  outdir: at("dist"),
});
const adapters = readdirSync(at("src/adapters")).map((name) => at(`src/adapters/${name}`));
if (adapters.length > 0) {
  await build({ ...common, ...standalone(false), minify: false, entryPoints: adapters, outdir: at("dist/adapters") });
}
copyFileSync(at("dist/tickcast.js"), at("../../src/door/pages/tickcast.js"));
