import { expect, test } from "vitest";
import { SAMPLES_MAX, Samples } from "../src/samples.ts";

test("times rise strictly, also if the clock steps back a little", () => {
  const samples = new Samples<string>();
  expect(samples.add(10_000, "a")).toBe("added");
  expect(samples.add(10_900, "the same second")).toBe("skipped");
  expect(samples.add(9_000, "earlier")).toBe("skipped");
  expect(samples.add(11_000, "b")).toBe("added");
  expect(samples.points).toEqual([
    { time: 10, value: "a" },
    { time: 11, value: "b" },
  ]);
});

test("a clock that steps back far resets the samples", () => {
  const samples = new Samples<string>();
  samples.add(10_000_000, "a");
  expect(samples.add(6_400_000, "an hour earlier")).toBe("renewed");
  expect(samples.points.map(({ time }) => time)).toEqual([6400]);
});

test("a day of samples is cut to the newest", () => {
  const samples = new Samples<number>();
  let renewed = 0;
  for (let second = 1; second <= 86_400; second++) {
    if (samples.add(second * 1000, second) === "renewed") renewed += 1;
    expect(samples.points.length).toBeLessThanOrEqual(SAMPLES_MAX + 60);
  }
  expect(samples.points.at(-1)).toEqual({ time: 86_400, value: 86_400 });
  expect(samples.points.length).toBeGreaterThanOrEqual(SAMPLES_MAX);
  expect(renewed).toBe(Math.floor((86_400 - SAMPLES_MAX) / 61));
});
