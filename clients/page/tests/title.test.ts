import { expect, test } from "vitest";
import { type Titled, titleText } from "../src/title.ts";

const shown: Titled = { price: "BTC-USD 61,837.63", state: "LIVE", phase: "live", wasLive: true, delayS: 0 };
const title = (changes: Partial<Titled>): string => titleText({ ...shown, ...changes });

test("the title has symbol and price, and before them why the price is not current", () => {
  expect(title({})).toBe("BTC-USD 61,837.63 · tickcast");
  expect(title({ state: "STALE" })).toBe("stale · BTC-USD 61,837.63 · tickcast");
  expect(title({ state: "RESYNCING" })).toBe("stale · BTC-USD 61,837.63 · tickcast");
  expect(title({ state: "UNKNOWN" })).toBe("not back · BTC-USD 61,837.63 · tickcast");
  expect(title({ state: "HALTED" })).toBe("halted · BTC-USD 61,837.63 · tickcast");
  expect(title({ state: "ENDED" })).toBe("ended · BTC-USD 61,837.63 · tickcast");
  expect(title({ state: "STALE", delayS: 900 })).toBe("stale · Delayed 15 min · BTC-USD 61,837.63 · tickcast");
});

test("a lost or silent connection is in the title, and comes before the state of the instrument", () => {
  for (const phase of ["waiting", "connecting", "closed"] as const) {
    expect(title({ phase, state: "STALE" })).toBe("connection lost · BTC-USD 61,837.63 · tickcast");
  }
  expect(title({ phase: "stale", state: "STALE" })).toBe("stale · BTC-USD 61,837.63 · tickcast");
});

test("before the first connection the title says nothing of a loss", () => {
  expect(title({ phase: "connecting", wasLive: false, price: "", state: "" })).toBe("tickcast");
  expect(title({ phase: "waiting", wasLive: false, price: "", state: "" })).toBe("connection lost · tickcast");
});
