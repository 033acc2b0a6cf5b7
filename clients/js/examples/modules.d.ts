/** What esbuild makes of a WebAssembly file: its URL. */
declare module "*.wasm" {
  const url: string;
  export default url;
}
declare module "*.css";
