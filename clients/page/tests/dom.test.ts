import { expect, test } from "vitest";
import { digitsWide } from "../src/dom.ts";

test("points and commas are half as wide as digits", () => {
  expect(digitsWide("61,837.63")).toBe(8);
  expect(digitsWide("−0.5")).toBe(3.5);
  expect(digitsWide("")).toBe(0);
});
