import { expect, test } from "vitest";
import { digitsWide } from "../src/dom.ts";

test("a number is as wide as its digits, and points and commas are half a digit", () => {
  expect(digitsWide("61,837.63")).toBe(8);
  expect(digitsWide("−0.5")).toBe(3.5);
  expect(digitsWide("")).toBe(0);
});
