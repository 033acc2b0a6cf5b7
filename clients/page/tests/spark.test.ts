import { expect, test } from "vitest";
import { Sparks, places } from "../src/spark.ts";

test("a row has its newest sixty values, the oldest first", () => {
  const sparks = new Sparks();
  for (let at = 0; at < 70; at++) sparks.sample([at, NaN], 2);
  const points = sparks.points(0);
  expect([points.length, points[0], points[59]]).toEqual([60, 10, 69]);
  expect(sparks.points(1).length).toBe(0);
});

test("rows that come later do not disturb those that are there", () => {
  const sparks = new Sparks();
  sparks.sample([1], 1);
  sparks.sample(new Float64Array(3000).fill(2), 3000);
  expect([...sparks.points(0)]).toEqual([1, 2]);
  expect([...sparks.points(2999)]).toEqual([2]);
});

test("the line goes from edge to edge, the largest value on top, equal values in the middle", () => {
  expect(places(Float32Array.of(1, 3, 2))).toEqual([
    [2, 17],
    [29.5, 3],
    [57, 10],
  ]);
  expect(places(Float32Array.of(5, 5))).toEqual([
    [2, 10],
    [57, 10],
  ]);
});
