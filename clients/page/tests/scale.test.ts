import { expect, test } from "vitest";
import { robustRange } from "../src/scale.ts";

/** Bars that move a little around a price; each has a height of 2. */
const calm = (count: number, px = 100): number[] => Array.from({ length: count }, (_, at) => px + (at % 5));
const range = (closes: number[], changes: Record<number, number> = {}) => {
  const highs = closes.map((px, at) => Math.max(px + 1, changes[at] ?? -Infinity));
  const lows = closes.map((px, at) => Math.min(px - 1, changes[at] ?? Infinity));
  return robustRange(lows, highs, closes.at(-1) ?? NaN);
};

test("a trade at a hundred times the price does not flatten the chart", () => {
  expect(range(calm(100), { 50: 10_000 })).toEqual({ low: 99, high: 105 });
  expect(range(calm(100), { 50: 0.01 })).toEqual({ low: 99, high: 105 });
  // Also when it is the newest trade, and when all others have the same price.
  expect(robustRange([...calm(50), 10_000], [...calm(50), 10_000], 10_000)).toEqual({ low: 100, high: 104 });
  expect(robustRange([...Array(50).fill(100), 10_000], [...Array(50).fill(100), 10_000], 100)).toEqual({
    low: 100,
    high: 100,
  });
});

test("a trend, a step and a crash are shown whole", () => {
  const trend = Array.from({ length: 100 }, (_, at) => 100 + at * 10);
  expect(range(trend)).toEqual({ low: 99, high: 1091 });
  // A crash by a third two bars ago: the price is still there.
  expect(range([...calm(98), 60, 61])).toEqual({ low: 59, high: 105 });
  // One by four fifths, in the newest bar.
  expect(range([...calm(99), 20])).toEqual({ low: 19, high: 105 });
  expect(range([...calm(60), ...calm(40, 300)])).toEqual({ low: 99, high: 305 });
});

test("a wick that leaves the others enough height is not cut", () => {
  expect(range(calm(100), { 50: 130 })).toEqual({ low: 99, high: 130 });
});

test("many far prices are no outliers, and few bars have none", () => {
  const wicks = Object.fromEntries(Array.from({ length: 10 }, (_, at) => [at * 10, 10_000]));
  expect(range(calm(100), wicks)).toEqual({ low: 99, high: 10_000 });
  expect(range(calm(4), { 1: 10_000 })).toEqual({ low: 99, high: 10_000 });
});

test("prices below zero and bars without values", () => {
  expect(range(calm(100, -50), { 50: -10_000 })).toEqual({ low: -51, high: -45 });
  expect(robustRange([NaN, NaN], [NaN, NaN], NaN)).toBe(null);
  expect(robustRange([NaN, 1], [NaN, 2], 2)).toEqual({ low: 1, high: 2 });
});
