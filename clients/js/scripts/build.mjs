// Builds the package into dist/: the modules for bundlers, the adapters, their types, and the two files for script tags.
// It needs esbuild and tsc and nothing else, so that it runs where the package is installed from its folder.
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { buildFiles, buildModules } from "./files.mjs";
import { at, tools } from "./tools.mjs";

const { esbuild, compileTypes } = tools();
rmSync(at("dist"), { recursive: true, force: true });
mkdirSync(at("dist"));
const adapters = readdirSync(at("src/adapters")).map((name) => at(`src/adapters/${name}`));
await buildModules(esbuild, [at("src/index.ts"), at("src/worker.ts")], at("dist"));
await buildModules(esbuild, adapters, at("dist/adapters"));
await buildFiles(esbuild, at("dist"));
compileTypes(at("tsconfig.build.json"));
