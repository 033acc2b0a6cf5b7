/** Which rows the watchlist shows, and in which order. Pure: values come in as arrays by row. */

/** A column by which the watchlist can be sorted. */
export type SortKey = "symbol" | "bid" | "ask" | "last" | "change" | "spread" | "volume" | "state";

export interface Sort {
  readonly by: SortKey;
  readonly descending: boolean;
}

/** What a click on a column's head makes of the order: the other way round, or numbers from the largest down. */
export function turned(sort: Sort, by: SortKey): Sort {
  if (sort.by === by) return { by, descending: !sort.descending };
  return { by, descending: by !== "symbol" && by !== "state" };
}

const collator = new Intl.Collator("en", { numeric: true });

/** The place of each symbol among all, in the order that people expect (`A2` before `A10`). */
export function symbolRanks(symbols: readonly string[]): Float64Array {
  const ranks = new Float64Array(symbols.length);
  const rows = symbols.map((_, row) => row);
  rows.sort((a, b) => collator.compare(symbols[a] ?? "", symbols[b] ?? ""));
  rows.forEach((row, rank) => (ranks[row] = rank));
  return ranks;
}

/**
 * Puts rows in order, in place: pinned ones first, then by value; rows without a value (NaN) come last either way,
 * and equal values are ordered by `ranks`, so that nothing jumps without a reason.
 */
export function putInOrder(
  rows: number[],
  values: Float64Array,
  descending: boolean,
  ranks: Float64Array,
  pinned: (row: number) => boolean,
): void {
  const turn = descending ? -1 : 1;
  const first = new Set(rows.filter(pinned));
  rows.sort((a, b) => {
    const pins = Number(first.has(b)) - Number(first.has(a));
    if (pins !== 0) return pins;
    const [left, right] = [values[a] ?? NaN, values[b] ?? NaN];
    const missing = Number(Number.isNaN(left)) - Number(Number.isNaN(right));
    if (missing !== 0) return missing;
    if (left !== right && missing === 0 && !Number.isNaN(left)) return turn * (left - right);
    return (ranks[a] ?? 0) - (ranks[b] ?? 0);
  });
}

/** Does this symbol or venue have all words of the search? Both in lower case. */
export function matches(haystack: string, search: string): boolean {
  return search.split(/\s+/).every((word) => haystack.includes(word));
}
