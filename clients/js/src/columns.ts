/**
 * Columns: typed arrays of one length, side by side in one buffer, so that all of them travel to another thread at
 * once.
 *
 * The same columns serve twice: by row, where each row has its newest value, and as a list, where `row` says whose
 * value each entry is. Growing makes new arrays; whoever holds the old ones has the old values.
 */

import type { QuoteColumns, TickerColumns, TradeColumns } from "./types";

export type Columns = Record<string, Float64Array | Uint32Array | Uint8Array>;
export type Quotes = QuoteColumns & Columns;
export type Tickers = TickerColumns & Columns;
export type Trades = TradeColumns & Columns & { row: Uint32Array };

/** The mantissas of each channel of values, in the order of the wire; by channel from 1. */
export const FIELDS: readonly (readonly string[])[] = [
  [],
  ["bidPx", "bidSz", "askPx", "askSz"],
  ["px", "sz", "tradeId"],
  ["lastPx", "openPx", "highPx", "lowPx", "volume", "turnover", "bidPx", "askPx"],
];

/** What every value has beside its mantissas; widths of 8, 4 and 1 bytes, in this order for alignment. */
const STAMP_8 = ["sequence", "eventMs", "recvMs"];
const STAMP_4 = ["row", "eventNs", "recvNs"];
const STAMP_1 = ["flags", "side"];

/** Bytes of one row of a channel. */
export function rowBytes(channel: number): number {
  return (FIELDS[channel].length + STAMP_8.length) * 8 + STAMP_4.length * 4 + STAMP_1.length;
}

/** Columns of a channel over a buffer, as many rows as fit; rows are a multiple of 8. */
export function over(channel: number, buffer: ArrayBuffer): Columns {
  const columns: Columns = {};
  const rows = buffer.byteLength / rowBytes(channel);
  let at = 0;
  const lay = (names: readonly string[], Kind: any): void => {
    for (const name of names) {
      columns[name] = new Kind(buffer, at, rows);
      at += columns[name].byteLength;
    }
  };
  lay([...FIELDS[channel], ...STAMP_8], Float64Array);
  lay(STAMP_4, Uint32Array);
  lay(STAMP_1, Uint8Array);
  return columns;
}

/** New columns of so many rows, with what `from` had; mantissas that were not there are absent. */
export function grown(channel: number, rows: number, from?: Columns): Columns {
  const columns = over(channel, new ArrayBuffer(rows * rowBytes(channel)));
  for (const field of FIELDS[channel]) columns[field].fill(NaN);
  for (const name in from) columns[name].set(from[name]);
  return columns;
}
