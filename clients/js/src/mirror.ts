/**
 * The page side's copy of the state: columns by row, books, directory. One batch per frame is written into it.
 *
 * What always holds: nothing is allocated per update, and per frame only lists of rows; arrays grow by doubling when
 * instruments are added.
 */

import { grown, over, rescale, REST, type Columns, type Trades } from "./columns";
import { exactOf } from "./format";
import type { Batch } from "./messages";
import { CHANGED, type Book, type Instrument, type Instruments, type InstrumentState } from "./types";

const COLUMNS = ["pxExp", "szExp", "tickSize", "lotSize"] as const;

/** Columns of the directory. */
class Directory implements Instruments {
  readonly #list: Instrument[] = [];
  readonly #rows = new Map<string, number>();
  readonly pxExp: number[] = [];
  readonly szExp: number[] = [];
  readonly tickSize: number[] = [];
  readonly lotSize: number[] = [];

  get length(): number {
    return this.#list.length;
  }

  row(symbol: string): number {
    return this.#rows.get(symbol) ?? -1;
  }

  symbol(row: number): string {
    return this.#list[row]?.symbol ?? "";
  }

  venue(row: number): string {
    return this.#list[row]?.venue ?? "";
  }

  status(row: number): string {
    return this.#list[row]?.status ?? "";
  }

  [Symbol.iterator](): IterableIterator<Instrument> {
    // Without released rows.
    return this.#list.flat().values();
  }

  define(instrument: Instrument): void {
    const { row, symbol } = instrument;
    this.#list[row] = instrument;
    this.#rows.set(symbol, row);
    for (const name of COLUMNS) this[name][row] = instrument[name];
  }

  release(row: number): void {
    const symbol = this.symbol(row);
    // It may be defined again already, in another row.
    if (this.row(symbol) === row) this.#rows.delete(symbol);
    delete this.#list[row];
  }
}

export class Mirror {
  readonly instruments = new Directory();
  /** Columns by channel from 1: quotes, newest trades, tickers. */
  readonly columns: Columns[] = [];
  readonly books = new Map<number, Book>();
  /** The trades of the last batch. */
  trades!: Trades;
  #rows = 0;
  /** Bits of the batch under way, by row. */
  readonly #bits = new Map<number, number>();
  /** By row; a new row is RESYNCING. */
  readonly #state: InstrumentState[] = [];

  constructor() {
    this.#grow(0);
  }

  /** Applies a batch; returns the rows that it has changed, and at the same indexes their bits of CHANGED. */
  apply(batch: Batch): { changed: Uint32Array; what: Uint8Array } {
    this.#bits.clear();
    for (const instrument of batch.defined.values()) {
      const { row, pxExp, szExp } = instrument;
      const { instruments } = this;
      if (row + 1 >= this.#rows) this.#grow(row + 1);
      // NaN for a first definition.
      const shifts = [instruments.pxExp[row] - pxExp, instruments.szExp[row] - szExp];
      if (shifts.some(Boolean)) this.#rescale(row, shifts);
      instruments.define(instrument);
      this.#mark(row, CHANGED.instrument);
    }
    for (const row of batch.cleared) this.#clear(row);
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
    const bits = this.#bits;
    return { changed: Uint32Array.from(bits.keys()), what: Uint8Array.from(bits.values()) };
  }

  stateOf(row: number): InstrumentState {
    return this.instruments.symbol(row) ? (this.#state[row] ?? "RESYNCING") : "STALE";
  }

  /** The exact mantissa of the newest value of a field; channel from 1. Null where there is none. */
  exact(channel: number, row: number, field: string): bigint | null {
    const from = this.columns[channel];
    const value = from[field][row] ?? NaN;
    return value === value ? BigInt(exactOf(value, from[field + REST][row])) : null;
  }

  /** The instrument has ended for good: forgets it. */
  release(row: number): void {
    this.#clear(row);
    this.instruments.release(row);
  }

  /** Resets the values of a row, as if none had come. */
  #clear(row: number): void {
    for (const columns of this.columns) this.#empty(columns, row);
    this.books.delete(row);
    this.#mark(row, 15);
  }

  #empty(columns: Columns, row: number): void {
    // The last row is always empty.
    for (const name in columns) columns[name].copyWithin(row, -1);
  }

  /** New exponents: quote and ticker come again, and the last trade is scaled if that is exact. */
  #rescale(row: number, shifts: readonly number[]): void {
    this.columns.forEach((columns, channel) => {
      if (channel !== 2 || !rescale(columns, row, shifts)) this.#empty(columns, row);
    });
    this.#mark(row, 7);
  }

  #take(channel: number, list: Columns, length: number): void {
    const columns = this.columns[channel];
    for (const name in columns) {
      const [from, to] = [list[name], columns[name]];
      for (let index = 0; index < length; index++) to[list.row[index]] = from[index];
    }
    for (let index = 0; index < length; index++) this.#mark(list.row[index], 1 << (channel - 1));
  }

  #mark(row: number, bit: number): void {
    this.#bits.set(row, (this.#bits.get(row) ?? 0) | bit);
  }

  /** Grows the columns so that they have this row, at least by doubling. */
  #grow(row: number): void {
    while (this.#rows <= row) this.#rows = this.#rows * 2 || 64;
    for (const channel of [1, 2, 3]) this.columns[channel] = grown(channel, this.#rows, this.columns[channel]);
  }
}
