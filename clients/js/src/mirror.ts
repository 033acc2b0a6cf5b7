/**
 * The page's copy of the state: columns by row, books, directory. Batches are written into it, one per frame.
 *
 * What always holds: nothing is allocated per update; arrays grow by doubling when instruments are new.
 */

import * as columns from "./columns";
import type { Columns, Quotes, Tickers, TradeRows, Trades } from "./columns";
import { STATES, wideKey, type Batch } from "./messages";
import { BOOK_VALUES } from "./store";
import { CHANGED, type Book, type Instrument, type Instruments, type Side } from "./types";

/** One side of a book, as it was handed over last. */
class Levels implements Side {
  length = 0;
  px = new Float64Array(0);
  sz = new Float64Array(0);

  /** Takes so many levels: prices, then sizes. Returns where the values go on. */
  take(length: number, values: Float64Array, at: number): number {
    if (length > this.px.length) {
      const room = columns.capacity(length);
      [this.px, this.sz] = [new Float64Array(room), new Float64Array(room)];
    }
    for (let place = 0; place < length; place++) {
      this.px[place] = values[at + place];
      this.sz[place] = values[at + length + place];
    }
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
    const head = at;
    [this.bidLevels, this.askLevels, this.sequence] = [values[head + 2], values[head + 3], values[head + 4]];
    [this.eventMs, this.recvMs, this.suspect] = [values[head + 5], values[head + 6], values[head + 7] !== 0];
    at = this.bids.take(values[head], values, head + BOOK_VALUES);
    return this.asks.take(values[head + 1], values, at);
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

  define(instrument: Instrument, rows: number): void {
    if (rows > this.pxExp.length) this.#grow(rows);
    const { row } = instrument;
    this.list[row] = instrument;
    this.rows.set(instrument.symbol, row);
    this.pxExp[row] = instrument.pxExp;
    this.szExp[row] = instrument.szExp;
    this.tickSize[row] = instrument.tickSize;
    this.lotSize[row] = instrument.lotSize;
  }

  #grow(rows: number): void {
    const grow = <T extends Int8Array | Float64Array>(from: T, to: T): T => (to.set(from), to);
    this.pxExp = grow(this.pxExp, new Int8Array(rows));
    this.szExp = grow(this.szExp, new Int8Array(rows));
    this.tickSize = grow(this.tickSize, new Float64Array(rows).fill(NaN));
    this.lotSize = grow(this.lotSize, new Float64Array(rows).fill(NaN));
  }
}

const { QUOTE_FIELDS, TICKER_FIELDS, TRADE_FIELDS, QUOTES, TICKERS, LAST_TRADES } = columns;

export class Mirror {
  readonly instruments = new Directory();
  quotes = columns.grown(QUOTES, 64, QUOTE_FIELDS) as Quotes;
  tickers = columns.grown(TICKERS, 64, TICKER_FIELDS) as Tickers;
  lastTrades = columns.grown(LAST_TRADES, 64, TRADE_FIELDS) as Trades;
  readonly books = new Map<number, MirrorBook>();
  /** Indices into STATES. */
  state = new Uint8Array(64).fill(2);
  /** The trades of the last batch. */
  trades = columns.over(columns.TRADE_LIST, 0, new ArrayBuffer(0)) as TradeRows;
  #rows = 64;
  readonly #wide = new Map<number, bigint>();

  /** Takes a batch over. Calls back with the rows whose state has changed. */
  apply(batch: Batch, stateChanged: (row: number) => void): void {
    for (const instrument of batch.defined) {
      if (instrument.row >= this.#rows) this.#grow(columns.capacity(instrument.row + 1));
      this.instruments.define(instrument, this.#rows);
    }
    for (const [key, value] of batch.wide) this.#wide.set(key, value);
    let at = 0;
    for (let index = 0; index < batch.length; index++) {
      const row = batch.rows[index];
      const what = batch.what[index];
      if ((what & CHANGED.quote) !== 0) at = read(this.quotes, QUOTE_FIELDS, row, batch.values, at);
      if ((what & CHANGED.ticker) !== 0) at = read(this.tickers, TICKER_FIELDS, row, batch.values, at);
      if ((what & CHANGED.book) !== 0) at = this.#book(row).take(batch.values, at);
      if ((what & CHANGED.state) === 0) continue;
      this.state[row] = batch.values[at++];
      stateChanged(row);
    }
    this.trades = columns.over(columns.TRADE_LIST, batch.tradesCapacity, batch.trades) as TradeRows;
    for (let index = 0; index < batch.tradesLength; index++) this.#lastTrade(index);
  }

  stateOf(row: number): (typeof STATES)[number] {
    return STATES[this.state[row]] ?? "STALE";
  }

  /**
   * The exact mantissa of the newest value of a field; channel from 1. Null where there is none, and where the newest is
   * not the one of `sequence`.
   */
  exact(channel: number, row: number, field: string, sequence?: number): bigint | null {
    const from: Columns = [this.quotes, this.lastTrades, this.tickers][channel - 1];
    const value = from[field]?.[row] ?? NaN;
    if (value !== value || (sequence ?? from.sequence[row]) !== from.sequence[row]) return null;
    if (Number.isFinite(value)) return BigInt(value);
    return this.#wide.get(wideKey(row, channel, columns.FIELDS[channel].indexOf(field))) ?? null;
  }

  #book(row: number): MirrorBook {
    let book = this.books.get(row);
    if (book === undefined) this.books.set(row, (book = new MirrorBook(row)));
    return book;
  }

  #lastTrade(index: number): void {
    const { trades, lastTrades } = this;
    const row = trades.row[index];
    for (const field in columns.LAST_TRADES) lastTrades[field][row] = trades[field][index];
  }

  #grow(rows: number): void {
    this.quotes = columns.grown(QUOTES, rows, QUOTE_FIELDS, this.quotes) as Quotes;
    this.tickers = columns.grown(TICKERS, rows, TICKER_FIELDS, this.tickers) as Tickers;
    this.lastTrades = columns.grown(LAST_TRADES, rows, TRADE_FIELDS, this.lastTrades) as Trades;
    const state = new Uint8Array(rows).fill(2);
    state.set(this.state);
    this.state = state;
    this.#rows = rows;
  }
}

/** Reads mantissas and stamps in the order in which the store writes them. */
function read(into: Columns, fields: readonly string[], row: number, values: Float64Array, at: number): number {
  for (const field of fields) into[field][row] = values[at++];
  into.sequence[row] = values[at++];
  into.flags[row] = values[at++];
  into.eventMs[row] = values[at++];
  into.eventNs[row] = values[at++];
  into.recvMs[row] = values[at++];
  into.recvNs[row] = values[at++];
  return at;
}
