/**
 * The page's copy of the state: columns by row, books, directory. Batches are written into it, one per frame.
 *
 * What always holds: nothing is allocated per update, and only lists of rows per frame; arrays grow by doubling when
 * instruments are new.
 */

import { capacity, FIELDS, grown, over, type Columns, type Trades } from "./columns";
import { NEW_STATE, STATES, wideKey, type Batch } from "./messages";
import { CHANGED, type Book, type Instrument, type Instruments } from "./types";

/** Columns of the directory. */
class Directory implements Instruments {
  readonly list: Instrument[] = [];
  readonly rows = new Map<string, number>();
  readonly pxExp: number[] = [];
  readonly szExp: number[] = [];
  readonly tickSize: number[] = [];
  readonly lotSize: number[] = [];

  get length(): number {
    return this.list.length;
  }

  row(symbol: string): number {
    return this.rows.get(symbol) ?? -1;
  }

  symbol(row: number): string {
    return this.list[row]?.symbol ?? "";
  }

  venue(row: number): string {
    return this.list[row]?.venue ?? "";
  }

  status(row: number): string {
    return this.list[row]?.status ?? "";
  }

  [Symbol.iterator](): IterableIterator<Instrument> {
    return this.list.values();
  }

  define(instrument: Instrument): void {
    const { row, symbol, pxExp, szExp, tickSize, lotSize } = instrument;
    this.list[row] = instrument;
    this.rows.set(symbol, row);
    [this.pxExp[row], this.szExp[row], this.tickSize[row], this.lotSize[row]] = [pxExp, szExp, tickSize, lotSize];
  }
}

const BITS = [0, CHANGED.quote, CHANGED.trade, CHANGED.ticker];

export class Mirror {
  readonly instruments = new Directory();
  /** Columns by channel from 1: quotes, newest trades, tickers. */
  readonly columns: Columns[] = [{}, grown(1, 64), grown(2, 64), grown(3, 64)];
  readonly books = new Map<number, Book>();
  /** The trades of the last batch. */
  trades = over(2, new ArrayBuffer(0)) as Trades;
  /** What the last batch has changed: rows, and bits of CHANGED at the same places. */
  changed: Uint32Array = new Uint32Array(0);
  what: Uint8Array = new Uint8Array(0);
  #rows = 64;
  /** Bits of the batch under way, by row. */
  readonly #bits = new Map<number, number>();
  /** By row: indices into STATES. */
  readonly #state: number[] = [];
  readonly #wide = new Map<number, bigint>();

  /** Takes a batch over. */
  apply(batch: Batch): void {
    this.#bits.clear();
    for (const instrument of batch.defined) {
      if (instrument.row >= this.#rows) this.#grow(capacity(instrument.row + 1));
      this.instruments.define(instrument);
      this.#mark(instrument.row, CHANGED.instrument);
    }
    for (const [key, value] of batch.wide) this.#wide.set(key, value);
    for (let channel = 1; channel <= 3; channel++) {
      const list = over(channel, batch.buffers[channel - 1]);
      if (channel === 2) this.trades = list as Trades;
      this.#take(channel, list, batch.lengths[channel - 1]);
    }
    for (const book of batch.books) {
      this.books.set(book.row, book);
      this.#mark(book.row, CHANGED.book);
    }
    for (const [row, state] of batch.states) {
      this.#state[row] = state;
      this.#mark(row, CHANGED.state);
    }
    this.changed = Uint32Array.from(this.#bits.keys());
    this.what = Uint8Array.from(this.#bits.values());
  }

  stateOf(row: number): (typeof STATES)[number] {
    return row < 0 ? "STALE" : STATES[this.#state[row] ?? NEW_STATE];
  }

  /**
   * The exact mantissa of the newest value of a field; channel from 1. Null where there is none, and where the newest
   * is not the one of `sequence`.
   */
  exact(channel: number, row: number, field: string, sequence?: number): bigint | null {
    const from = this.columns[channel];
    const value = from[field]?.[row] ?? NaN;
    if (value !== value || (sequence ?? from.sequence[row]) !== from.sequence[row]) return null;
    if (Number.isFinite(value)) return BigInt(value);
    return this.#wide.get(wideKey(row, channel, FIELDS[channel].indexOf(field))) ?? null;
  }

  #take(channel: number, list: Columns, length: number): void {
    const columns = this.columns[channel];
    for (const name in columns) {
      const [from, to] = [list[name], columns[name]];
      for (let index = 0; index < length; index++) to[list.row[index]] = from[index];
    }
    for (let index = 0; index < length; index++) this.#mark(list.row[index], BITS[channel]);
  }

  #mark(row: number, bit: number): void {
    this.#bits.set(row, (this.#bits.get(row) ?? 0) | bit);
  }

  #grow(rows: number): void {
    this.#rows = rows;
    for (const channel of [1, 2, 3]) this.columns[channel] = grown(channel, rows, this.columns[channel]);
  }
}
