// Writes the files that the server embeds and serves: those for script tags, made smaller by terser, which saves some
// 350 bytes (gzipped) more than esbuild alone. For those who change the client; commit what it writes.
import * as esbuild from "esbuild";
import { minify } from "terser";
import { buildFiles } from "./files.mjs";
import { at } from "./tools.mjs";

const options = {
  ...{ module: true, ecma: 2022, format: { comments: false } },
  compress: { passes: 3, pure_getters: true, unsafe_arrows: true },
};
await buildFiles(esbuild, at("../../src/http/assets"), async (text) => (await minify(text, options)).code);
