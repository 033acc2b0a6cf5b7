import { expect, test } from "vitest";
import { matches, putInOrder, symbolRanks, turned } from "../src/order.ts";

const none = (): boolean => false;

function order(values: number[], descending: boolean, pinned: (row: number) => boolean = none): number[] {
  const rows = values.map((_, row) => row);
  putInOrder(rows, Float64Array.from(values), descending, Float64Array.from(values.keys()), pinned);
  return rows;
}

test("symbols are ordered as people expect, with numbers as numbers", () => {
  const symbols = ["ES10", "ES9", "AAPL", "es1"];
  const rows = symbols.map((_, row) => row);
  const ranks = symbolRanks(symbols);
  putInOrder(rows, ranks, false, ranks, none);
  expect(rows.map((row) => symbols[row])).toEqual(["AAPL", "es1", "ES9", "ES10"]);
});

test("rows without a value come last, either way round", () => {
  expect(order([2, NaN, 3, 1], false)).toEqual([3, 0, 2, 1]);
  expect(order([2, NaN, 3, 1], true)).toEqual([2, 0, 3, 1]);
});

test("equal values keep the order of symbols, either way round", () => {
  expect(order([1, 1, 1], true)).toEqual([0, 1, 2]);
  expect(order([NaN, NaN, 1], true)).toEqual([2, 0, 1]);
});

test("pinned rows come first, in the same order among themselves", () => {
  expect(order([1, 2, 3, 4], true, (row) => row < 2)).toEqual([1, 0, 3, 2]);
});

test("a click on the sorted column turns it, and on another starts with what is largest", () => {
  expect(turned({ by: "symbol", descending: false }, "symbol")).toEqual({ by: "symbol", descending: true });
  expect(turned({ by: "symbol", descending: false }, "volume")).toEqual({ by: "volume", descending: true });
  expect(turned({ by: "volume", descending: true }, "symbol")).toEqual({ by: "symbol", descending: false });
});

test("all words of a search must be there", () => {
  expect(matches("btc-usd sim-coinbase", "btc coin")).toBe(true);
  expect(matches("btc-usd sim-coinbase", "btc nasdaq")).toBe(false);
});
