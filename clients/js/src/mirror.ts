/**
 * The page's copy of the state: columns by row, books, directory. Batches are written into it, one per frame.
 *
 * What always holds: nothing is allocated per update; arrays grow by doubling when instruments are new.
 */

import { capacity, enlarged, FIELDS, grown, over, type Columns, type Trades } from "./columns";
import { NEW_STATE, STATES, wideKey, type Batch } from "./messages";
import { BOOK_HEAD } from "./store";
import { CHANGED, type Book, type Instrument, type Instruments, type Side } from "./types";

/** One side of a book, as it was handed over last. */
class Levels implements Side {
  length = 0;
  px = new Float64Array(0);
  sz = new Float64Array(0);

  /** Takes so many levels: prices, then sizes. Returns where the values go on. */
  take(length: number, values: Float64Array, at: number): number {
    if (length > this.px.length) {
      this.px = new Float64Array(capacity(length));
      this.sz = new Float64Array(capacity(length));
    }
    this.px.set(values.subarray(at, at + length));
    this.sz.set(values.subarray(at + length, at + 2 * length));
    this.length = length;
    return at + 2 * length;
  }
}

class MirrorBook implements Book {
  readonly bids = new Levels();
  readonly asks = new Levels();
  bidLevels = 0;
  askLevels = 0;
  sequence = 0;
  eventMs = 0;
  recvMs = 0;
  suspect = false;

  constructor(readonly row: number) {}

  take(values: Float64Array, at: number): number {
    const [, bids, asks, ...head] = values.subarray(at, at + BOOK_HEAD);
    [this.bidLevels, this.askLevels, this.sequence, this.eventMs, this.recvMs] = head;
    this.suspect = head[5] !== 0;
    return this.asks.take(asks, values, this.bids.take(bids, values, at + BOOK_HEAD));
  }
}

/** Columns of the directory. */
class Directory implements Instruments {
  readonly list: Instrument[] = [];
  readonly rows = new Map<string, number>();
  pxExp = new Int8Array(64);
  szExp = new Int8Array(64);
  tickSize = new Float64Array(64).fill(NaN);
  lotSize = new Float64Array(64).fill(NaN);

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
    if (row >= this.pxExp.length) {
      const rows = capacity(row + 1);
      this.pxExp = enlarged(this.pxExp, rows);
      this.szExp = enlarged(this.szExp, rows);
      this.tickSize = enlarged(this.tickSize, rows, NaN);
      this.lotSize = enlarged(this.lotSize, rows, NaN);
    }
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
  readonly books = new Map<number, MirrorBook>();
  /** The trades of the last batch. */
  trades = over(2, new ArrayBuffer(0)) as Trades;
  /** What the last batch has changed: rows, and bits of CHANGED at the same places. */
  changed = new Uint32Array(64);
  what = new Uint8Array(64);
  changedLength = 0;
  /** By row: bits of the last batch; and indices into STATES. */
  #bits = new Uint8Array(64);
  #state = new Uint8Array(64).fill(NEW_STATE);
  readonly #wide = new Map<number, bigint>();

  /** Takes a batch over. */
  apply(batch: Batch): void {
    this.changedLength = 0;
    for (const instrument of batch.defined) {
      if (instrument.row >= this.#bits.length) this.#grow(capacity(instrument.row + 1));
      this.instruments.define(instrument);
      this.#mark(instrument.row, CHANGED.instrument);
    }
    for (const [key, value] of batch.wide) this.#wide.set(key, value);
    for (let channel = 1; channel <= 3; channel++) {
      const list = over(channel, batch.buffers[channel - 1]);
      if (channel === 2) this.trades = list as Trades;
      this.#take(channel, list, batch.lengths[channel - 1]);
    }
    for (let at = 0; at < batch.booksLength; ) {
      const row = batch.books[at];
      let book = this.books.get(row);
      if (book === undefined) this.books.set(row, (book = new MirrorBook(row)));
      at = book.take(batch.books, at);
      this.#mark(row, CHANGED.book);
    }
    for (const [row, state] of batch.states) {
      this.#state[row] = state;
      this.#mark(row, CHANGED.state);
    }
    for (let index = 0; index < this.changedLength; index++) {
      const row = this.changed[index];
      this.what[index] = this.#bits[row];
      this.#bits[row] = 0;
    }
  }

  stateOf(row: number): (typeof STATES)[number] {
    return STATES[this.#state[row]] ?? "STALE";
  }

  /**
   * The exact mantissa of the newest value of a field; channel from 1. Null where there is none, and where the newest is
   * not the one of `sequence`.
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
    if (this.#bits[row] === 0) this.changed[this.changedLength++] = row;
    this.#bits[row] |= bit;
  }

  #grow(rows: number): void {
    for (const channel of [1, 2, 3]) this.columns[channel] = grown(channel, rows, this.columns[channel]);
    // Within a batch: what it has marked already stays marked.
    const changed = new Uint32Array(rows);
    changed.set(this.changed);
    this.changed = changed;
    this.what = new Uint8Array(rows);
    this.#bits = enlarged(this.#bits, rows);
    this.#state = enlarged(this.#state, rows, NEW_STATE);
  }
}
