/**
 * Columns: typed arrays of one length, side by side in one buffer, so that all of them travel to another thread at once.
 *
 * Growing makes new arrays; whoever holds the old ones has the old values.
 */

import type { QuoteColumns, TickerColumns, TradeColumns } from "./types";

/** Width of a column's elements: 8 a Float64Array, 4 a Uint32Array, 1 a Uint8Array. Wide ones come first. */
type Layout = Record<string, 8 | 4 | 1>;

const STAMP = { sequence: 8, eventMs: 8, recvMs: 8, eventNs: 4, recvNs: 4, flags: 1 } as const;
const STAMP_WIDE = { sequence: 8, eventMs: 8, recvMs: 8 } as const;

/** Fields of values that are mantissas, in the order of the wire. */
export const QUOTE_FIELDS = ["bidPx", "bidSz", "askPx", "askSz"] as const;
export const TRADE_FIELDS = ["px", "sz", "tradeId"] as const;
export const TICKER_FIELDS = [
  "lastPx",
  "openPx",
  "highPx",
  "lowPx",
  "volume",
  "turnover",
  "bidPx",
  "askPx",
] as const;

/** The same by channel, from 1. */
export const FIELDS: readonly (readonly string[])[] = [[], QUOTE_FIELDS, TRADE_FIELDS, TICKER_FIELDS];

const wide = (fields: readonly string[]): Layout => Object.fromEntries(fields.map((field) => [field, 8]));

export const QUOTES: Layout = { ...wide(QUOTE_FIELDS), ...STAMP };
export const TICKERS: Layout = { ...wide(TICKER_FIELDS), ...STAMP };
export const LAST_TRADES: Layout = { ...wide(TRADE_FIELDS), ...STAMP, side: 1 };
export const TRADE_LIST: Layout = { ...wide(TRADE_FIELDS), ...STAMP_WIDE, row: 4, ...STAMP, side: 1 };

export type Columns = Record<string, Float64Array | Uint32Array | Uint8Array>;
export type Quotes = QuoteColumns & Columns;
export type Tickers = TickerColumns & Columns;
export type Trades = TradeColumns & Columns;
export type TradeRows = Trades & { row: Uint32Array };

/** How many bytes so many rows take. */
export function bytesOf(layout: Layout, rows: number): number {
  return rows * Object.values(layout).reduce<number>((sum, width) => sum + width, 0);
}

/** Columns of so many rows over a buffer. `rows` is a multiple of 8, so that every array is aligned. */
export function over(layout: Layout, rows: number, buffer: ArrayBuffer): Columns {
  const columns: Columns = {};
  let at = 0;
  for (const [name, width] of Object.entries(layout)) {
    const Kind = width === 8 ? Float64Array : width === 4 ? Uint32Array : Uint8Array;
    columns[name] = new Kind(buffer, at, rows);
    at += rows * width;
  }
  return columns;
}

/** New columns of so many rows, with what `from` had; mantissas that were not there are absent. */
export function grown(layout: Layout, rows: number, mantissas: readonly string[], from?: Columns): Columns {
  const columns = over(layout, rows, new ArrayBuffer(bytesOf(layout, rows)));
  for (const field of mantissas) (columns[field] as Float64Array).fill(NaN);
  if (from !== undefined) for (const name in columns) columns[name].set(from[name]);
  return columns;
}

/** The least power of two that holds so many, 64 at least. */
export function capacity(rows: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(rows, 64)));
}
