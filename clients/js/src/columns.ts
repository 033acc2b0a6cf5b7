/**
 * Columns: typed arrays of one length in one buffer, so that one transfer moves them to another thread.
 *
 * They have two uses: by row, with the newest value of each row, and as a list, where `row` has the row of each entry.
 * Growing makes new arrays; the old ones keep the old values.
 */

import { exactOf } from "./format";
import type { QuoteColumns, TickerColumns, TradeColumns } from "./types";

export type Columns = Record<string, Float64Array | Uint32Array | Int16Array | Uint8Array>;
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

/** Appended to the name of a mantissa's column: the column of what the exact mantissa is above that number. */
export const REST = "Rest";

/** Columns of every channel beside the mantissas, of 8, 4 and 1 bytes: in this order for alignment. */
const STAMP_8 = ["sequence", "eventMs", "recvMs"];
const STAMP_4 = ["row", "eventNs", "recvNs"];
const STAMP_1 = ["flags", "side"];

/** Bytes of one row of a channel. */
export function rowBytes(channel: number): number {
  return FIELDS[channel].length * 10 + STAMP_8.length * 8 + STAMP_4.length * 4 + STAMP_1.length;
}

/** Columns of a channel over a buffer that has space for a multiple of 8 rows. */
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
  lay(
    FIELDS[channel].map((name) => name + REST),
    Int16Array,
  );
  lay(STAMP_1, Uint8Array);
  return columns;
}

/** New columns with the values of `from`; the mantissas of added rows are NaN. */
export function grown(channel: number, rows: number, from?: Columns): Columns {
  const columns = over(channel, new ArrayBuffer(rows * rowBytes(channel)));
  for (const field of FIELDS[channel]) columns[field].fill(NaN);
  for (const name in from) columns[name].set(from[name]);
  return columns;
}

/**
 * Scales price and size of a trade by powers of ten, for new exponents of its instrument. False where one of them is
 * not a mantissa of 64 bits then: the entry is to be dropped.
 */
export function rescale(trades: Columns, at: number, shifts: readonly number[]): boolean {
  return ["px", "sz"].every((name, index) => {
    const shift = shifts[index];
    const value = trades[name][at];
    if (!shift || value !== value) return true;
    const exact = BigInt(exactOf(value, trades[name + REST][at]));
    const factor = 10n ** BigInt(Math.abs(shift));
    const scaled = shift > 0 ? exact * factor : exact / factor;
    trades[name][at] = Number(scaled);
    trades[name + REST][at] = Number(scaled - BigInt(Number(scaled)));
    return BigInt.asIntN(64, scaled) === scaled && (shift > 0 || exact % factor === 0n);
  });
}
