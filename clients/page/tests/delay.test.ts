import { expect, test } from "vitest";
import { delayText, gridText, liveText } from "../src/delay.ts";
import { titleText } from "../src/title.ts";

test.each([
  [0, "", "A 1 · tickcast"],
  [1, "Delayed by 1 second", "Delayed 1 s · A 1 · tickcast"],
  [59, "Delayed by 59 seconds", "Delayed 59 s · A 1 · tickcast"],
  [60, "Delayed by 1 minute", "Delayed 1 min · A 1 · tickcast"],
  [90, "Delayed by 90 seconds", "Delayed 90 s · A 1 · tickcast"],
  [900, "Delayed by 15 minutes", "Delayed 15 min · A 1 · tickcast"],
  [604_800, "Delayed by 10,080 minutes", "Delayed 10,080 min · A 1 · tickcast"],
])("%d seconds", (seconds, label, title) => {
  const shown = { price: "A 1", state: "LIVE", phase: "live", wasLive: true } as const;
  expect([delayText(seconds), titleText({ ...shown, delayS: seconds })]).toEqual([label, title]);
});

test("an instrument that is not there since the restart says so", () => {
  expect([liveText("UNKNOWN", 0), liveText("UNKNOWN", 900)]).toEqual(["NOT BACK", "NOT BACK"]);
});

test("no word of a delayed market says that it is live", () => {
  expect(["live", "LIVE", "stale", "STALE"].map((word) => liveText(word, 900))).toEqual([
    ...["delayed", "DELAYED", "stale", "STALE"],
  ]);
  expect(["live", "LIVE"].map((word) => liveText(word, 0))).toEqual(["live", "LIVE"]);
  expect([gridText(0), gridText(900)]).toEqual(["Live prices", "Prices, delayed by 15 minutes"]);
});
