// What both builds share: the package's and that of the files which the server embeds.
import { writeFileSync } from "node:fs";
import { INTERNAL } from "./internal.mjs";
import { at } from "./tools.mjs";

const COMMON = { format: "esm", target: "es2022", legalComments: "none", logLevel: "warning" };

/** The files for script tags, by name: what runs on the page, and the stream side. */
const FILES = { "tickcast.js": "src/index.ts", "tickcast-stream.js": "src/worker.ts" };

/** Modules for bundlers. What an application brings along stays an import, as does the stream side. */
export async function buildModules({ build }, entryPoints, outdir) {
  await build({
    ...{ ...COMMON, bundle: true, external: ["react"], plugins: [streamSide("./worker.js")], entryPoints, outdir },
    // What is only for script tags is left out: bundlers would warn of an import that they cannot follow.
    ...{ define: { __STANDALONE__: "false" }, minifySyntax: true },
  });
}

/** Keeps the import of the stream side, which is a file of its own, and gives it that file's name. */
function streamSide(path) {
  const setup = (own) => own.onResolve({ filter: /^\.\/worker$/ }, () => ({ path, external: true }));
  return { name: "stream-side", setup };
}

/**
 * The files for script tags, into a folder. The internal names are shortened alike in both, as each sends the other
 * messages. `finish` may make a text smaller still.
 */
export async function buildFiles({ build }, outdir, finish = (text) => text) {
  let mangleCache = {};
  for (const [name, entry] of Object.entries(FILES)) {
    const bundled = await build({
      ...{ ...COMMON, bundle: true, write: false, entryPoints: [at(entry)] },
      ...{ define: { __STANDALONE__: "true" }, plugins: [streamSide("./tickcast-stream.js")] },
    });
    const short = await build({
      ...{ ...COMMON, bundle: false, minify: true, write: false, mangleCache },
      // A field that the constructor assigns need not be declared.
      stdin: { contents: bundled.outputFiles[0].text.replace(/^ {2}(?!return|break|continue)[a-z]\w*;\n/gim, "") },
      mangleProps: new RegExp(`^(${INTERNAL.join("|")})$`),
    });
    mangleCache = short.mangleCache;
    writeFileSync(`${outdir}/${name}`, await finish(short.outputFiles[0].text));
  }
}
