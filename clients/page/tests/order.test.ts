import { expect, test } from "vitest";
import { type Candidate, afterClick, matches, opening, searchKey, sortRows, symbolRanks } from "../src/order.ts";

const none = (): boolean => false;

function order(values: number[], descending: boolean, pinned: (row: number) => boolean = none): number[] {
  const rows = values.map((_, row) => row);
  sortRows(rows, Float64Array.from(values), descending, Float64Array.from(values.keys()), pinned);
  return rows;
}

test("symbols are sorted with numbers by value", () => {
  const symbols = ["ES10", "ES9", "AAPL", "es1"];
  const rows = symbols.map((_, row) => row);
  const ranks = symbolRanks(symbols);
  sortRows(rows, ranks, false, ranks, none);
  expect(rows.map((row) => symbols[row])).toEqual(["AAPL", "es1", "ES9", "ES10"]);
});

test("rows without a value come last in both directions", () => {
  expect(order([2, NaN, 3, 1], false)).toEqual([3, 0, 2, 1]);
  expect(order([2, NaN, 3, 1], true)).toEqual([2, 0, 3, 1]);
});

test("equal values are sorted by symbol in both directions", () => {
  expect(order([1, 1, 1], true)).toEqual([0, 1, 2]);
  expect(order([NaN, NaN, 1], true)).toEqual([2, 0, 1]);
});

test("pinned rows come first, sorted among themselves", () => {
  expect(order([1, 2, 3, 4], true, (row) => row < 2)).toEqual([1, 0, 3, 2]);
});

test("a click reverses the sorted column, and sorts another by largest first", () => {
  expect(afterClick({ by: "symbol", descending: false }, "symbol")).toEqual({ by: "symbol", descending: true });
  expect(afterClick({ by: "symbol", descending: false }, "volume")).toEqual({ by: "volume", descending: true });
  expect(afterClick({ by: "volume", descending: true }, "symbol")).toEqual({ by: "symbol", descending: false });
});

test("all words of a search must match", () => {
  const keys = ["BTC-USD", "SIM-COINBASE"].map(searchKey);
  expect(matches(keys, "btc coin")).toBe(true);
  expect(matches(keys, "btc nasdaq")).toBe(false);
  // A word is of the symbol or of the venue, never of the end of one and the start of the other.
  expect(matches(keys, "usdsim")).toBe(false);
});

test("a search ignores case and the signs between the parts of a name", () => {
  for (const name of ["BTC-USD", "BTC/USD", "btc_usd", "BTC.USD", "BTC:USD", "BTC USD", "BTCUSD"]) {
    const keys = [searchKey(name)];
    for (const search of ["btcusd", "BTC-USD", "btc/usd", "Btc_Usd", "btc usd", "c.u", "usd", "-"]) {
      expect([name, search, matches(keys, search)]).toEqual([name, search, true]);
    }
    expect(matches(keys, "btceur")).toBe(false);
  }
});

const candidate = (symbol: string, state: Candidate["state"], hasValues = true): Candidate => ({
  symbol,
  state,
  hasValues,
});

test("the page opens the first live instrument with values", () => {
  const rows = [
    candidate("ENDED", "ENDED"),
    candidate("AWAY", "UNKNOWN"),
    candidate("EMPTY", "LIVE", false),
    candidate("OLD", "STALE"),
    candidate("GOOD", "LIVE"),
    candidate("NEXT", "LIVE"),
  ];
  for (const isSynced of [false, true]) expect(opening(rows, isSynced)).toBe("GOOD");
});

test("without a live instrument the page waits, and then opens one whose market is closed or silent", () => {
  const rows = [candidate("ENDED", "ENDED"), candidate("AWAY", "UNKNOWN"), candidate("EMPTY", "STALE", false)];
  expect(opening(rows, true)).toBe("");
  rows.push(candidate("CLOSED", "HALTED"));
  expect([opening(rows, false), opening(rows, true)]).toEqual(["", "CLOSED"]);
});
