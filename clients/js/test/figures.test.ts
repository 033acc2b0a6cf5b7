/** Figures computed from counters. */

import { expect, test } from "vitest";
import { Figures } from "../src/figures";
import { NO_COUNTERS } from "../src/messages";

test("rates are correct when counters of several seconds come at once", () => {
  const figures = new Figures();
  const from = performance.timeOrigin + performance.now();
  for (let second = 1; second <= 3; second++) {
    const counters = { ...NO_COUNTERS, messages: 200 * second, updates: 1000 * second };
    figures.count({ counters, atMs: from + 1000 * second });
  }
  expect(figures.stats).toMatchObject({ messagesPerSecond: 200, updatesPerSecond: 1000 });
});
