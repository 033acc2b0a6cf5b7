// Fails when a file that a page loads before its first price is too large, gzipped: the entry, which runs on the page's
// thread, and the stream side, which a worker loads beside it. By script tags both are the files that the server embeds;
// an application with a bundler has the modules.
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import * as esbuild from "esbuild";
import { at } from "./tools.mjs";

const ENTRY_MAX = 12_288;

const embedded = (name) => readFileSync(at(`../../src/http/assets/${name}`));
const minified = (name) =>
  esbuild.transformSync(readFileSync(at(`dist/${name}`), "utf8"), { minify: true, format: "esm" }).code;

let isTooLarge = false;
for (const [read, entry, streamSide, bothMax] of [
  [embedded, "tickcast.js", "tickcast-stream.js", 18_200],
  [minified, "index.js", "worker.js", 19_200],
]) {
  const [one, other] = [entry, streamSide].map((name) => gzipSync(read(name), { level: 9 }).length);
  console.log(`gzipped, at most ${ENTRY_MAX}: ${entry} ${one}; at most ${bothMax} with ${streamSide}: ${one + other}`);
  isTooLarge ||= one > ENTRY_MAX || one + other > bothMax;
}
if (isTooLarge) process.exit(1);
