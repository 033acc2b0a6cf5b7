// Fails when the one file, which a page loads before its first price, is too large, gzipped.
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const BYTES_MAX = 16_100;
const bytes = readFileSync(new URL("../dist/tickcast.js", import.meta.url));
const packed = gzipSync(bytes, { level: 9 }).length;
console.log(`dist/tickcast.js: ${bytes.length} bytes, ${packed} gzipped; at most ${BYTES_MAX}`);
if (packed > BYTES_MAX) process.exit(1);
