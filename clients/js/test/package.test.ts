/** What the package promises beside its code. */

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

const json = (path: string): any => JSON.parse(readFileSync(new URL(`../${path}`, import.meta.url), "utf8"));

test("the build has the same tools where the package is installed as a folder", () => {
  const { devDependencies } = json("package.json");
  const { dependencies } = json("scripts/tools/package.json");
  const { esbuild, typescript } = devDependencies;
  expect(dependencies).toEqual({ esbuild, typescript });
});

test("an application gets no dependency, and React only where it has it", () => {
  const { dependencies, peerDependencies, peerDependenciesMeta } = json("package.json");
  expect([dependencies, Object.keys(peerDependencies)]).toEqual([undefined, ["react"]]);
  expect(peerDependenciesMeta).toEqual({ react: { optional: true } });
});
