import { expect, test } from "vitest";
import { type Level, type Side, grouped, groupings } from "../src/levels.ts";

const side = (levels: [px: number, sz: number, rest?: number][]): Side => ({
  px: levels.map(([px]) => px),
  sz: levels.map(([, sz]) => sz),
  szRest: levels.map(([, , rest = 0]) => rest),
  length: levels.length,
});
const level = (px: number, sz: number, cumulative: number): Level => ({
  ...{ px, sz, cumulative, szRest: 0, cumulativeRest: 0 },
});

test("cumulative sizes start at the best price", () => {
  const bids = grouped(
    side([
      [100, 5],
      [99, 2],
      [97, 1],
    ]),
    1,
    false,
    10,
  );
  expect(bids).toEqual([
    level(100, 5, 5),
    level(99, 2, 7),
    level(97, 1, 8),
  ]);
});

test("bids round down and asks round up", () => {
  expect(
    grouped(
      side([
        [104, 1],
        [101, 1],
        [99, 1],
      ]),
      5,
      false,
      10,
    ).map(({ px, sz }) => [px, sz]),
  ).toEqual([
    [100, 2],
    [95, 1],
  ]);
  expect(
    grouped(
      side([
        [101, 1],
        [105, 1],
        [106, 1],
      ]),
      5,
      true,
      10,
    ).map(({ px, sz }) => [px, sz]),
  ).toEqual([
    [105, 2],
    [110, 1],
  ]);
});

test("negative prices round in the same directions", () => {
  expect(
    grouped(
      side([
        [-1, 1],
        [-5, 1],
      ]),
      5,
      false,
      10,
    ).map(({ px }) => px),
  ).toEqual([-5]);
  expect(
    grouped(
      side([
        [-9, 1],
        [-5, 1],
      ]),
      5,
      true,
      10,
    ).map(({ px }) => px),
  ).toEqual([-5]);
});

test("a limit counts complete buckets", () => {
  const bids = grouped(
    side([
      [10, 1],
      [9, 1],
      [8, 1],
      [7, 1],
    ]),
    2,
    false,
    2,
  );
  expect(bids).toEqual([
    level(10, 1, 1),
    level(8, 2, 3),
  ]);
});

test("groupings are 1, 2, 5, … ticks up to a hundredth of the price", () => {
  expect(groupings(10, 9_000_000)).toEqual([10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000]);
  expect(groupings(1, 50)).toEqual([1]);
  expect(groupings(NaN, 1000)).toEqual([1, 2, 5, 10]);
});

test("sums of sizes beyond 2^53 have their exact digits in rests", () => {
  const sizes = [2n ** 62n + 77n, 3n, 2n ** 53n + 1n, 2n ** 61n - 1n];
  const levels = sizes.map((size, at): [number, number, number] => [
    ...([100 - at, Number(size), Number(size - BigInt(Number(size)))] as [number, number, number]),
  ]);
  const exact = (number = 0, rest = 0): bigint => BigInt(number) + BigInt(rest);
  const single = grouped(side(levels), 1, false, 10);
  expect(single.map(({ sz, szRest }) => exact(sz, szRest))).toEqual(sizes);
  const all = sizes.reduce((sum, size) => sum + size);
  expect(exact(single.at(-1)?.cumulative, single.at(-1)?.cumulativeRest)).toBe(all);
  const [bucket] = grouped(side(levels), 1000, false, 10);
  expect(exact(bucket?.sz, bucket?.szRest)).toBe(all);
  expect(Math.abs((bucket?.sz ?? 0) - Number(all))).toBeLessThanOrEqual(1024);
});
