// The one file is not to grow: what a page has to load before its first price, gzipped.
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const MOST = 12_900;
const bytes = readFileSync(new URL("../dist/tickcast.js", import.meta.url));
const packed = gzipSync(bytes, { level: 9 }).length;
console.log(`dist/tickcast.js: ${bytes.length} bytes, ${packed} gzipped; at most ${MOST}`);
if (packed > MOST) process.exit(1);
