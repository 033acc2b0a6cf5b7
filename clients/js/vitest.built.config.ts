import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const built = fileURLToPath(new URL("../../src/http/assets/tickcast.js", import.meta.url));

/** The same tests against the files that the server embeds: shortened names must not change their behaviour. */
export default defineConfig({
  resolve: { alias: [{ find: /^\.\.\/src\/index$/, replacement: built }] },
  test: {
    include: ["test/{client,reconnect,adapters,inexact,instruments,arguments,token,access}.test.ts"],
    ...{ testTimeout: 30_000, hookTimeout: 30_000 },
  },
});
