// Builds the examples from source and serves them. Start a tickcast server with
// `--allow-origin http://127.0.0.1:8123`, and open the URL that is printed.
import { context } from "esbuild";

const folder = (path) => new URL(`../${path}`, import.meta.url).pathname;
const names = ["watchlist", "lightweight-charts", "uplot", "ag-grid", "perspective", "react"];
const built = await context({
  entryPoints: names.map((name) => folder(`examples/${name}.${name === "react" ? "tsx" : "ts"}`)),
  ...{ bundle: true, format: "esm", target: "es2022", outdir: folder("examples/built"), logLevel: "warning" },
  define: { __STANDALONE__: "false" },
  loader: { ".wasm": "file" },
  publicPath: "built",
  // Resolves the examples' imports, which are those of an application, to the sources.
  alias: { tickcast: folder("src/index.ts"), "tickcast/adapters": folder("src/adapters") },
});
const worker = await context({
  ...{ bundle: true, format: "esm", target: "es2022", outdir: folder("examples/built"), logLevel: "warning" },
  define: { __STANDALONE__: "false" },
  entryPoints: [folder("src/worker.ts")],
});
await worker.rebuild();
if (process.argv.includes("--build")) {
  await built.rebuild();
  await Promise.all([built.dispose(), worker.dispose()]);
} else {
  const port = Number(process.env.PORT ?? 8123);
  await built.serve({ servedir: folder("examples"), host: "127.0.0.1", port });
  console.log(`http://127.0.0.1:${port}/?server=http://127.0.0.1:9001`);
}
