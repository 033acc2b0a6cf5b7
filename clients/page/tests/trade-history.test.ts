import { expect, test } from "vitest";
import type { RecentTrade } from "../src/recent-trades.ts";
import { joined, mantissaOf, tradesOf } from "../src/trade-history.ts";

const trade = (sequence: number | null, epoch = 7, at = 1000 + (sequence ?? 0)): RecentTrade => ({
  ...{ at, px: sequence ?? 0, sz: 1, pxRest: 0, szRest: 0, pxExp: -2, szExp: 0, side: "B", sequence, epoch },
});
const range = (from: number, to: number, epoch = 7): RecentTrade[] =>
  Array.from({ length: to - from + 1 }, (_, at) => trade(from + at, epoch));
const numbers = (trades: readonly RecentTrade[]): (number | null)[] => trades.map(({ sequence }) => sequence);

test("decimal text keeps all its digits, also beyond 2^53", () => {
  expect(mantissaOf("61837.63")).toEqual({ mantissa: 6183763, rest: 0, exp: -2 });
  expect(mantissaOf("-0.005")).toEqual({ mantissa: -5, rest: 0, exp: -3 });
  expect(mantissaOf("90071992.54740993")).toEqual({ mantissa: 9007199254740992, rest: 1, exp: -8 });
  for (const wrong of [null, undefined, "", "1e5", "x"]) expect(mantissaOf(wrong).mantissa).toBeNaN();
});

test("the columns of an answer become trades", () => {
  const answer = {
    ...{ sequence: [4, 5], ts_event: [1795293329042000000, 0], ts_recv: [1795293330000000000, 1795293330001000000] },
    ...{ px: ["61837.63", "61837.6"], sz: ["0.25", null], side: ["S", null] },
  };
  const [first, second] = tradesOf(answer, 7);
  expect(first).toEqual({
    ...{ at: 1795293329042, px: 6183763, sz: 25, pxRest: 0, szRest: 0, pxExp: -2, szExp: -2 },
    ...{ side: "S", sequence: 4, epoch: 7 },
  });
  expect([second?.at, second?.sz, second?.side]).toEqual([1795293330001, NaN, "N"]);
  expect(tradesOf({ ...answer, sequence: [null, 1] }, 7).map(({ sequence }) => sequence)).toEqual([null, 1]);
});

test("history and live trades are joined without duplicates", () => {
  expect(numbers(joined(range(1, 10), range(8, 15), 7))).toEqual(numbers(range(1, 15)));
  expect(numbers(joined(range(1, 10), range(11, 12), 7))).toEqual(numbers(range(1, 12)));
  expect(numbers(joined([], range(11, 12), 7))).toEqual([11, 12]);
  expect(numbers(joined(range(3, 4), [], 7))).toEqual([3, 4]);
  expect(joined([], [], 7)).toEqual([]);
});

test("the list begins after a trade that is missing", () => {
  expect(numbers(joined(range(1, 5), range(8, 9), 7))).toEqual([8, 9]);
  // An older answer fills what the live trades lack.
  expect(numbers(joined(range(1, 8), [trade(2), trade(9)], 7))).toEqual(numbers(range(1, 9)));
});

test("trades of before a restart stay, and are not listed twice", () => {
  const before = [trade(900, 6, 10), trade(901, 6, 1500)];
  expect(numbers(joined(range(1, 2), [...before, trade(2)], 7))).toEqual([900, 1, 2]);
});

test("trades that the server has stored come before all others, once", () => {
  const stored = [trade(null, 7, 900), trade(null, 7, 901)];
  const first = joined([...stored, ...range(1, 2)], range(2, 4), 7);
  expect(numbers(first)).toEqual([null, null, 1, 2, 3, 4]);
  expect(first[0]?.at).toBe(900);
  // A later answer, and one that has no trade of this run.
  expect(numbers(joined([...stored, ...range(1, 5)], first, 7))).toEqual([null, null, 1, 2, 3, 4, 5]);
  expect(numbers(joined(stored, [], 7))).toEqual([null, null]);
  expect(numbers(joined(stored, range(1, 1), 7))).toEqual([null, null, 1]);
  expect(numbers(joined([], first, 7))).toEqual(numbers(first));
  // What the page has seen before the restart is among them; what is older stays.
  const seen = [trade(50, 6, 800), trade(51, 6, 900), trade(52, 6, 901)];
  expect(numbers(joined(stored, seen, 7))).toEqual([50, null, null]);
  // None is hidden between them and the others.
  expect(numbers(joined(stored, [trade(1), trade(3)], 7))).toEqual([3]);
});
