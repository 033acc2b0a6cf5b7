import { expect, test } from "vitest";
import { grouped, groupings } from "../src/levels.ts";

const side = (levels: [number, number][]): { px: number[]; sz: number[]; length: number } => ({
  px: levels.map(([px]) => px),
  sz: levels.map(([, sz]) => sz),
  length: levels.length,
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
    { px: 100, sz: 5, cumulative: 5 },
    { px: 99, sz: 2, cumulative: 7 },
    { px: 97, sz: 1, cumulative: 8 },
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
    { px: 10, sz: 1, cumulative: 1 },
    { px: 8, sz: 2, cumulative: 3 },
  ]);
});

test("groupings are 1, 2, 5, … ticks up to a hundredth of the price", () => {
  expect(groupings(10, 9_000_000)).toEqual([10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000]);
  expect(groupings(1, 50)).toEqual([1]);
  expect(groupings(NaN, 1000)).toEqual([1, 2, 5, 10]);
});
