import { defineConfig } from "vitest/config";

export default defineConfig({
  define: { __STANDALONE__: "false" },
  test: { include: ["test/**/*.test.ts"], testTimeout: 30_000, hookTimeout: 30_000 },
});
