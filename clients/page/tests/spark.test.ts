import { expect, test } from "vitest";
import { Sparks, coordinates } from "../src/spark.ts";

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
