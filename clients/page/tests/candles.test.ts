import { expect, test } from "vitest";
import { Candles, barStart, barsOf, drawnAs, emptyBar, rangeAfterDrop, wholeDigits, type Bar } from "../src/candles.ts";

const bar = (time: number, open: number, high: number, low: number, close: number, volume: number): Bar => ({
  ...emptyBar(time),
  open,
  high,
  low,
  close,
  volume,
});

test("a bar starts at a multiple of its interval", () => {
  expect(barStart(119.999, 60)).toBe(60);
  expect(barStart(120, 60)).toBe(120);
});

test("trades of one interval make one candle", () => {
  const candles = new Candles(5);
  for (const [at, px] of [
    [10, 100],
    [11, 103],
    [12, 98],
    [14.9, 101],
  ] as const)
    candles.trade(at, px, 2);
  candles.trade(15, 102, 1);
  expect(candles.bars).toEqual([bar(10, 100, 103, 98, 101, 8), bar(15, 102, 102, 102, 102, 1)]);
});

test("a late trade goes into its own bar, which is created if missing", () => {
  const candles = new Candles(1);
  candles.trade(10, 100, 1);
  candles.trade(13, 103, 1);
  candles.trade(10.5, 90, 1);
  candles.trade(11, 95, 1);
  expect(candles.bars.map(({ time, low }) => [time, low])).toEqual([
    [10, 90],
    [11, 95],
    [13, 103],
  ]);
});

test("a one-sided quote keeps the other side", () => {
  const candles = new Candles(1);
  candles.quote(10, 99, 101);
  candles.quote(10.5, 98, NaN);
  expect(candles.newest).toMatchObject({ bid: 98, ask: 101 });
});

test("a join has the open of history, the widest extremes, the live close, and volume once", () => {
  const candles = new Candles(60);
  candles.trade(125, 104, 1); // also in the history below
  candles.trade(126, 97, 1); // likewise
  candles.join([bar(60, 90, 95, 89, 94, 50), bar(120, 100, 105, 97, 97, 9)]);
  candles.trade(130, 99, 2); // after the answer
  expect(candles.bars).toEqual([bar(60, 90, 95, 89, 94, 50), bar(120, 100, 105, 97, 99, 11)]);
});

test("replayed trades add no volume to complete bars", () => {
  const candles = new Candles(1);
  candles.trade(10, 100, 1);
  candles.join([bar(10, 100, 100, 100, 100, 1), bar(11, 101, 102, 101, 102, 5), bar(12, 103, 103, 103, 103, 2)]);
  candles.trade(11, 101, 2);
  candles.trade(11.5, 102, 3);
  candles.trade(12.9, 104, 4);
  expect(candles.bars.map(({ close, volume }) => [close, volume])).toEqual([
    [100, 1],
    [102, 5],
    [104, 6],
  ]);
});

test("late trades add no volume to a corrected bar", () => {
  const candles = new Candles(1);
  candles.join([bar(10, 100, 100, 100, 100, 1)]);
  candles.trade(12, 101, 1);
  candles.correct([bar(10, 100, 100, 100, 100, 7), bar(11, 100, 100, 100, 100, 3), bar(12, 101, 101, 101, 101, 9)]);
  candles.trade(11.5, 100, 3);
  candles.trade(12.5, 101, 1);
  expect(candles.bars.map(({ volume }) => volume)).toEqual([7, 3, 2]);
});

test("a bar with a gap gets close and volume of history", () => {
  const candles = new Candles(60);
  candles.join([bar(60, 90, 95, 89, 94, 50), bar(120, 100, 100, 100, 100, 5)]);
  candles.trade(121, 100, 5); // also in the answer
  candles.quote(122, 99, 101);
  // Here the connection was lost, and was back in the next bar.
  candles.join([{ ...bar(120, 100, 108, 97, 107, 9), bid: 106, ask: 108 }, bar(180, 107, 107, 107, 107, 1)]);
  expect(candles.bars[1]).toEqual({ ...bar(120, 100, 108, 97, 107, 9), bid: 106, ask: 108 });
});

test("live bars after the history stay", () => {
  const candles = new Candles(1);
  candles.trade(10, 100, 1);
  candles.trade(11, 101, 1);
  candles.join([bar(9, 99, 99, 99, 99, 1), bar(10, 98, 100, 98, 100, 3)]);
  expect(candles.bars.map(({ time, open, volume }) => [time, open, volume])).toEqual([
    [9, 99, 1],
    [10, 98, 3],
    [11, 101, 1],
  ]);
});

test("an empty history leaves the live bars", () => {
  const candles = new Candles(1);
  candles.trade(10, 100, 1);
  candles.join([]);
  expect(candles.bars).toEqual([bar(10, 100, 100, 100, 100, 1)]);
});

test("a correction replaces only bars that are over", () => {
  const candles = new Candles(1);
  candles.trade(10, 100, 1);
  candles.trade(11, 101, 1);
  candles.correct([bar(10, 100, 100, 100, 100, 7), bar(11, 50, 50, 50, 50, 50)]);
  expect(candles.bars).toEqual([bar(10, 100, 100, 100, 100, 7), bar(11, 101, 101, 101, 101, 1)]);
});

test("a day of bars is cut to the newest", () => {
  const candles = new Candles(1);
  for (let at = 1; at <= 86_400; at++) candles.quote(at, 99, 101);
  expect(candles.bars.length).toBeLessThanOrEqual(7500);
  expect(candles.newest?.time).toBe(86_400);
  expect(candles.bars[0]?.time).toBe(86_401 - candles.bars.length);
});

test("dropping old bars keeps the same bars in view", () => {
  expect(rangeAfterDrop({ from: 7390, to: 7503 }, 1500)).toEqual({ from: 5890, to: 6003 });
  expect(rangeAfterDrop({ from: 200, to: 300 }, 1500)).toEqual({ from: 0, to: 100 });
  expect(rangeAfterDrop({ from: -5, to: 100 }, 1500)).toEqual({ from: -5, to: 100 });
});

test("columns of the server become bars, with NaN for null", () => {
  const bars = barsOf({
    time: [60, 120],
    open: ["1.5", null],
    high: ["2.5", null],
    low: ["0.5", null],
    close: ["2", null],
    volume: ["12", "0"],
    bid_px: ["1.9", "1.8"],
    ask_px: ["2.1", null],
  });
  expect(bars).toEqual([
    { time: 60, open: 1.5, high: 2.5, low: 0.5, close: 2, volume: 12, bid: 1.9, ask: 2.1 },
    { time: 120, open: NaN, high: NaN, low: NaN, close: NaN, volume: 0, bid: 1.8, ask: NaN },
  ]);
});

test("every price with 0 to 18 decimals has steps that the chart library takes", () => {
  for (let decimals = 0; decimals <= 18; decimals++) {
    for (const mantissa of [1, 5, 48, 6_183_763, 9.1e12, 5e15, 5e18, 9.2e18]) {
      const price = mantissa / 10 ** decimals;
      const { unit, minMove } = drawnAs(decimals, wholeDigits({ ...emptyBar(0), open: price, high: price, low: price }));
      const about = `${mantissa} with ${decimals} decimals`;
      // The library divides by it, and throws unless the result is made of factors 2 and 5.
      expect(String(Math.round(1 / minMove)), about).toMatch(/^10*$/);
      // Steps are far above 1e-14, below which the library takes numbers for equal, and change the drawn price.
      expect(minMove, about).toBeGreaterThan(1e-9);
      const drawn = price * unit;
      expect((drawn + minMove - drawn) / minMove, about).toBeCloseTo(1, 2);
      // They are as fine as the decimals, or as twelve digits.
      expect(minMove / unit, about).toBeLessThan(Math.max(10 ** -decimals, price * 1e-11) * 1.01);
    }
  }
  expect(drawnAs(2, 5)).toEqual({ unit: 1, minMove: 0.01 });
});

test("the digits before the point are those of the largest price of a bar", () => {
  expect(wholeDigits({ ...emptyBar(0), bid: 99.9, ask: 100 })).toBe(3);
  expect(wholeDigits({ ...emptyBar(0), open: -5, high: 1, low: -1234, close: 1 })).toBe(4);
  expect(wholeDigits({ ...emptyBar(0), bid: 0.00048 })).toBe(-3);
  expect(wholeDigits(emptyBar(0))).toBe(-Infinity);
});
