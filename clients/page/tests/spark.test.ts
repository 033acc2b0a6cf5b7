import { expect, test } from "vitest";
import { emptyBar } from "../src/candles.ts";
import { Sparks, coordinates } from "../src/spark.ts";
import { sparkPoints } from "../src/spark-history.ts";

test("a row has its newest sixty values, oldest first", () => {
  const sparks = new Sparks();
  for (let at = 0; at < 70; at++) sparks.sample([at, NaN], 2);
  const points = sparks.points(0);
  expect([points.length, points[0], points[59]]).toEqual([60, 10, 69]);
  expect(sparks.points(1).length).toBe(0);
});

test("added rows leave the values of others", () => {
  const sparks = new Sparks();
  sparks.sample([1], 1);
  sparks.sample(new Float64Array(3000).fill(2), 3000);
  expect([...sparks.points(0)]).toEqual([1, 2]);
  expect([...sparks.points(2999)]).toEqual([2]);
});

test("the line spans the width, with the largest value on top and equal values in the middle", () => {
  expect(coordinates(Float32Array.of(1, 3, 2))).toEqual([
    [2, 17],
    [29.5, 3],
    [57, 10],
  ]);
  expect(coordinates(Float32Array.of(5, 5))).toEqual([
    [2, 10],
    [57, 10],
  ]);
});

test("values from before the first one are put before it, as far as there is space", () => {
  const sparks = new Sparks();
  sparks.sample([NaN, 3], 2);
  sparks.fillBefore(1, [1, 2]);
  sparks.sample([NaN, 4], 2);
  expect([[...sparks.points(0)], [...sparks.points(1)]]).toEqual([[], [1, 2, 3, 4]]);
  sparks.fillBefore(1, Array.from({ length: 60 }, (_, at) => 100 + at));
  sparks.sample([NaN, 5], 2);
  const points = [...sparks.points(1)];
  expect([points.length, points[0], points.slice(-6)]).toEqual([60, 105, [159, 1, 2, 3, 4, 5]]);
});

test("a second without a trade has the close before it", () => {
  const bar = (time: number, close: number) => ({ ...emptyBar(time), close });
  const points = sparkPoints([bar(900, 7), bar(995, 8), bar(997, NaN), bar(998, 9)], 1000);
  expect([points.length, points.slice(-7)]).toEqual([60, [7, 8, 8, 8, 9, 9, 9]]);
  // The first trade of the instrument was five seconds ago, and another clock is ahead.
  expect(sparkPoints([bar(996, 1)], 1000)).toEqual([1, 1, 1, 1, 1]);
  expect(sparkPoints([bar(1010, 1), bar(1012, 2)], 1000)).toEqual([1, 1, 2]);
  expect(sparkPoints([], 1000)).toEqual([]);
});
