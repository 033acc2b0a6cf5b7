// Fails when modules import each other in a cycle: `node import-cycles.mjs FOLDER`. Imports of types count as well.
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";

const folder = normalize(process.argv[2] ?? "src");
const files = readdirSync(folder, { recursive: true })
  .filter((name) => name.endsWith(".ts"))
  .map((name) => join(folder, name));
const imports = new Map(files.map((file) => [file, importsOf(file)]));

if (files.length === 0) throw new Error(`${folder}: no modules found: expected a folder of .ts files`);
const cycle = findCycle();
if (cycle) {
  console.error(`import cycle: ${cycle.map((file) => relative(folder, file)).join(" -> ")}`);
  process.exit(1);
}

/** The modules of the folder that a module imports or re-exports. */
function importsOf(file) {
  const statements = readFileSync(file, "utf8").matchAll(/^(?:import|export)\b[^;]*?"(\.{1,2}\/[^"]+)"/gm);
  const paths = [...statements].map(([, path]) => join(dirname(file), path.replace(/\.ts$/, "")) + ".ts");
  return paths.filter((path) => files.includes(path));
}

/** The first cycle of a depth-first search: the modules in order, the first one again at the end. */
function findCycle() {
  const done = new Set();
  const visit = (file, path) => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
    if (done.has(file)) return undefined;
    for (const next of imports.get(file)) {
      const found = visit(next, [...path, file]);
      if (found) return found;
    }
    done.add(file);
    return undefined;
  };
  for (const file of files) {
    const found = visit(file, []);
    if (found) return found;
  }
  return undefined;
}
