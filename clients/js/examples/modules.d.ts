/** esbuild replaces a WebAssembly file by its URL. */
declare module "*.wasm" {
  const url: string;
  export default url;
}
declare module "*.css";
