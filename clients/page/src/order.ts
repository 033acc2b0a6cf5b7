/** The order, the search and the first choice of the watchlist. Pure: values are passed as arrays by row. */

import type { InstrumentState } from "tickcast";

/** A column by which the watchlist can be sorted. */
export type SortKey = "symbol" | "bid" | "ask" | "last" | "change" | "spread" | "volume" | "state";

export interface Sort {
  readonly by: SortKey;
  readonly descending: boolean;
}

/** The sort after a click on a column's header: reversed for the same column, else descending for numbers. */
export function afterClick(sort: Sort, by: SortKey): Sort {
  if (sort.by === by) return { by, descending: !sort.descending };
  return { by, descending: by !== "symbol" && by !== "state" };
}

const collator = new Intl.Collator("en", { numeric: true });

/** The rank of each symbol, in an order that compares numbers by value (`A2` before `A10`). */
export function symbolRanks(symbols: readonly string[]): Float64Array {
  const ranks = new Float64Array(symbols.length);
  const rows = symbols.map((_, row) => row);
  rows.sort((a, b) => collator.compare(symbols[a] ?? "", symbols[b] ?? ""));
  rows.forEach((row, rank) => (ranks[row] = rank));
  return ranks;
}

/**
 * Sorts rows in place: pinned ones first, then by value; rows without a value (NaN) come last in both directions, and
 * equal values are sorted by `ranks`, so that their order is stable.
 */
export function sortRows(
  rows: number[],
  values: Float64Array,
  descending: boolean,
  ranks: Float64Array,
  pinned: (row: number) => boolean,
): void {
  const sign = descending ? -1 : 1;
  const first = new Set(rows.filter(pinned));
  rows.sort((a, b) => {
    const pins = Number(first.has(b)) - Number(first.has(a));
    if (pins !== 0) return pins;
    const [left, right] = [values[a] ?? NaN, values[b] ?? NaN];
    const missing = Number(Number.isNaN(left)) - Number(Number.isNaN(right));
    if (missing !== 0) return missing;
    if (left !== right && missing === 0 && !Number.isNaN(left)) return sign * (left - right);
    return (ranks[a] ?? 0) - (ranks[b] ?? 0);
  });
}

/**
 * A name as the search compares it: in lower case, and without the signs that venues write differently in the same
 * name, so that `btcusd` finds `BTC-USD`, `BTC/USD` and `btc_usd`.
 */
export function searchKey(name: string): string {
  return name.toLowerCase().replace(/[-/_.:\s]/g, "");
}

/** Whether one of the keys contains each word of the search. */
export function matches(keys: readonly string[], search: string): boolean {
  const words = search.split(/\s+/).map(searchKey);
  return words.every((word) => keys.some((key) => key.includes(word)));
}

/** What is known of an instrument when the page chooses one by itself. */
export interface Candidate {
  readonly symbol: string;
  readonly state: InstrumentState;
  /** It has a last price or a quote. */
  readonly hasValues: boolean;
}

/**
 * The instrument that the page shows when nothing names one: the first live one with values. Once the server has sent
 * all, and none is live, it is the first with values that are not over: a market may be closed, or its feed silent.
 */
export function opening(candidates: readonly Candidate[], isSynced: boolean): string {
  const valued = candidates.filter(({ hasValues }) => hasValues);
  const live = valued.find(({ state }) => state === "LIVE");
  const waiting = isSynced ? valued.find(({ state }) => state === "STALE" || state === "HALTED") : undefined;
  return (live ?? waiting)?.symbol ?? "";
}
