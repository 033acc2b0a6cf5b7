/**
 * The stream's state by row, on the side that reads packets: newest values, books, directory, sequences.
 *
 * What always holds: a symbol has one row for the life of the client; ids of the server are of one epoch. A record whose
 * sequence is not above the one we have is a repetition and is passed over. A hole in a log channel that no Gap
 * announced is announced here; a book with a hole is suspect until it is replaced whole.
 *
 * It knows nothing of sockets and of time. Cost: a record of state is some twelve reads and as many writes.
 */

import { capacity } from "./columns";
import { Ladder } from "./ladder";
import { wideKey } from "./messages";
import { Outbox } from "./outbox";
import { CHANGED, type Instrument } from "./types";
import * as wire from "./wire";

/** Values of a quote and of a ticker: mantissas, then sequence, flags, and the two times. */
export const QUOTE_VALUES = 4 + 6;
export const TICKER_VALUES = 8 + 6;
/** What opens a book in a batch: levels of both sides handed over, levels there are, sequence, times, suspect. */
export const BOOK_VALUES = 8;

/** A book and how far it can be trusted. */
export class BookState {
  readonly bids = new Ladder(-1);
  readonly asks = new Ladder(1);
  sequence = 0;
  eventMs = 0;
  recvMs = 0;
  /** A hole was found: only a whole book makes it good. */
  broken = false;
  /** The server says that it may be wrong. */
  maybeBad = false;

  get suspect(): boolean {
    return this.broken || this.maybeBad;
  }
}

/** What the store cannot decide. */
export interface StoreEvents {
  /** A row's definition, status or book has changed in what its state is made of; row -1 is the whole feed. */
  status(row: number): void;
  /** A book has a hole: it has to be sent again. */
  broken(row: number): void;
  /** A value beyond 2^53 has come; channel from 1. */
  inexact(row: number, channel: number): void;
}

export class Store {
  readonly rows = new Map<string, number>();
  readonly instruments: Instrument[] = [];
  readonly books = new Map<number, BookState>();
  /** By row: the Status letter of this epoch, as a character code; 0 where nothing was said. */
  status = new Uint8Array(64);
  feedStatus = 0;
  /** By row: 1 where the server of this epoch has defined it. */
  known = new Uint8Array(64);
  /** By row: index into STATES; what is new is RESYNCING. */
  state = new Uint8Array(64).fill(2);
  /** By row and log channel: the last sequence of trades and of raw. */
  trades = new Float64Array(64);
  raws = new Float64Array(64);
  updates = 0;
  conflated = 0;
  gaps = 0;
  #quotes = new Float64Array(64 * QUOTE_VALUES);
  #tickers = new Float64Array(64 * TICKER_VALUES);
  /** Rows by id of this epoch; -1 where unknown. Ids are dense. */
  #ids = new Int32Array(256).fill(-1);

  constructor(
    readonly outbox: Outbox,
    readonly bookDepth: number,
    readonly events: StoreEvents,
  ) {}

  /** Sequences and ids start anew. What was shown stays, until it is replaced; holes in logs are told. */
  newEpoch(): void {
    for (let row = 0; row < this.instruments.length; row++) {
      if (this.trades[row] > 0) this.#gap(row, wire.TRADE, 0, 0, "resync");
      if (this.raws[row] > 0) this.#gap(row, wire.RAW, 0, 0, "resync");
      this.#quotes[row * QUOTE_VALUES + 4] = this.#tickers[row * TICKER_VALUES + 8] = 0;
    }
    for (const book of this.books.values()) book.sequence = 0;
    this.#ids.fill(-1);
    for (const column of [this.status, this.known, this.trades, this.raws]) column.fill(0);
    this.feedStatus = 0;
  }

  /** Nobody wants a channel of a row any more: what continuity meant there means nothing now. */
  forget(row: number, channel: number): void {
    if (channel === wire.TRADE) this.trades[row] = 0;
    else if (channel === wire.RAW) this.raws[row] = 0;
    else if (channel === wire.BOOK) this.books.delete(row);
    else if (channel === wire.QUOTE) this.#quotes[row * QUOTE_VALUES + 4] = 0;
    else this.#tickers[row * TICKER_VALUES + 8] = 0;
  }

  /** Takes in a packet's records. Throws a WireError where the layout is broken. */
  ingest(view: DataView): void {
    wire.eachRecord(view, (at, type) => {
      if (type === wire.DEFINITION) return this.#define(view, at);
      if (type === wire.HEARTBEAT) return;
      const id = view.getUint32(at + 4, true);
      const row = id < this.#ids.length ? this.#ids[id] : -1;
      if (type === wire.STATUS) return this.#status(view, at, id, row);
      if (row < 0) throw new wire.WireError(`a record of instrument ${id} before its definition`);
      if (type === wire.GAP) return this.#announced(view, at, row);
      this.updates++;
      if ((view.getUint8(at + 3) & wire.CONFLATED) !== 0) this.conflated++;
      if (type === wire.QUOTE) this.#values(view, at, row, this.#quotes, QUOTE_VALUES, type, CHANGED.quote);
      else if (type === wire.TICKER) this.#values(view, at, row, this.#tickers, TICKER_VALUES, type, CHANGED.ticker);
      else if (type === wire.TRADE) this.#trade(view, at, row);
      else if (type === wire.BOOK) this.#book(view, at, row);
      else this.#raw(view, at, row);
    });
  }

  /** How many numbers {@link write} takes at most for what waits. */
  room(): number {
    let room = this.outbox.length * (QUOTE_VALUES + TICKER_VALUES + 1);
    for (let index = 0; index < this.outbox.length; index++) {
      const row = this.outbox.rows[index];
      const book = (this.outbox.what[row] & CHANGED.book) !== 0 ? this.books.get(row) : undefined;
      room += BOOK_VALUES;
      if (book) room += 2 * (this.#shown(book.bids) + this.#shown(book.asks));
    }
    return room;
  }

  /** Appends the values of a row in the order of the bits of CHANGED. */
  write = (row: number, what: number, values: Float64Array, at: number): number => {
    if ((what & CHANGED.quote) !== 0) at = append(this.#quotes, row, QUOTE_VALUES, values, at);
    if ((what & CHANGED.ticker) !== 0) at = append(this.#tickers, row, TICKER_VALUES, values, at);
    if ((what & CHANGED.book) !== 0) at = this.#writeBook(row, values, at);
    if ((what & CHANGED.state) !== 0) values[at++] = this.state[row];
    return at;
  };

  setState(row: number, state: number): void {
    if (this.state[row] === state) return;
    this.state[row] = state;
    this.outbox.touch(row, CHANGED.state);
  }

  #define(view: DataView, at: number): void {
    const id = view.getUint32(at + 4, true);
    const [symbolBytes, venueBytes] = [view.getUint8(at + 35), view.getUint8(at + 36)];
    const symbol = wire.text(view, at + 64, symbolBytes);
    const row = this.rows.get(symbol) ?? this.#newRow(symbol);
    this.instruments[row] = {
      row,
      symbol,
      venue: wire.text(view, at + 64 + symbolBytes, venueBytes),
      pxExp: view.getInt8(at + 32),
      szExp: view.getInt8(at + 33),
      status: wire.letter(view, at + 34),
      tickSize: wire.i64(view, at + 40),
      lotSize: wire.i64(view, at + 48),
    };
    if (id >= this.#ids.length) this.#growIds(id);
    this.#ids[id] = row;
    this.known[row] = 1;
    this.outbox.defined.set(row, this.instruments[row]);
    this.outbox.touch(row, CHANGED.instrument);
    this.events.status(row);
  }

  #newRow(symbol: string): number {
    const row = this.instruments.length;
    this.rows.set(symbol, row);
    if (row >= this.status.length) {
      const rows = row * 2;
      const grow = <T extends Uint8Array | Float64Array>(from: T, to: T): T => (to.set(from), to);
      this.status = grow(this.status, new Uint8Array(rows));
      this.known = grow(this.known, new Uint8Array(rows));
      this.state = grow(this.state, new Uint8Array(rows).fill(2));
      this.trades = grow(this.trades, new Float64Array(rows));
      this.raws = grow(this.raws, new Float64Array(rows));
      this.#quotes = grow(this.#quotes, new Float64Array(rows * QUOTE_VALUES));
      this.#tickers = grow(this.#tickers, new Float64Array(rows * TICKER_VALUES));
    }
    return row;
  }

  #growIds(id: number): void {
    // A wrong id must not take all memory; the server's directory ends far below.
    if (id > 1 << 24) throw new wire.WireError(`instrument id ${id}`);
    const ids = new Int32Array(capacity(id + 1)).fill(-1);
    ids.set(this.#ids);
    this.#ids = ids;
  }

  #status(view: DataView, at: number, id: number, row: number): void {
    const letter = view.getUint8(at + 32);
    if (id === 0) {
      this.feedStatus = letter;
      this.events.status(-1);
    } else if (row >= 0) {
      this.status[row] = letter;
      this.events.status(row);
    }
  }

  #announced(view: DataView, at: number, row: number): void {
    const channel = view.getUint8(at + 48);
    const [from, to] = [wire.u64(view, at + 32), wire.u64(view, at + 40)];
    const letter = wire.letter(view, at + 49);
    const reason = letter === "S" ? "slow" : letter === "O" ? "overrun" : "feed";
    const last = channel === wire.TRADE ? this.trades : channel === wire.RAW ? this.raws : undefined;
    if (last !== undefined && to <= last[row]) return;
    this.#gap(row, channel, from, to, reason);
    if (last !== undefined) last[row] = to;
    if (channel === wire.BOOK) this.#break(row);
  }

  #gap(row: number, channel: number, from: number, to: number, reason: string): void {
    this.gaps++;
    this.outbox.gap([row, channel, from, to, reason]);
  }

  #break(row: number): void {
    const book = this.books.get(row);
    if (book === undefined || book.broken) return;
    book.broken = true;
    this.outbox.touch(row, CHANGED.book);
    this.events.status(row);
    this.events.broken(row);
  }

  /** A record of merged state: the newest wins. */
  #values(view: DataView, at: number, row: number, into: Float64Array, width: number, type: number, bit: number): void {
    const mantissas = width - 6;
    const to = row * width;
    const sequence = wire.u64(view, at + 8);
    if (sequence <= into[to + mantissas]) return;
    for (let field = 0; field < mantissas; field++) {
      into[to + field] = this.#mantissa(view, at + 32 + field * 8, row, type, field);
    }
    into[to + mantissas] = sequence;
    into[to + mantissas + 1] = view.getUint8(at + 3);
    into[to + mantissas + 2] = wire.wholeMs(view, at + 16);
    into[to + mantissas + 3] = wire.restNs(view, at + 16);
    into[to + mantissas + 4] = wire.wholeMs(view, at + 24);
    into[to + mantissas + 5] = wire.restNs(view, at + 24);
    this.outbox.touch(row, bit);
  }

  #mantissa(view: DataView, at: number, row: number, type: number, field: number): number {
    const value = wire.i64(view, at);
    if (value === Infinity || value === -Infinity) this.#wide(wire.big(view, at), row, type, field);
    return value;
  }

  #wide(value: bigint, row: number, type: number, field: number): void {
    this.outbox.wide.set(wideKey(row, type, field), value);
    this.events.inexact(row, type);
  }

  /** True where a record of a log goes on from what we have; holes that nobody announced are told. */
  #follows(last: Float64Array, row: number, channel: number, sequence: number, flags: number): boolean {
    const had = last[row];
    if (sequence <= had) return false;
    last[row] = sequence;
    if (had > 0 && sequence > had + 1) {
      this.#gap(row, channel, had + 1, sequence - 1, (flags & wire.SNAPSHOT) !== 0 ? "resync" : "order");
    }
    return true;
  }

  #trade(view: DataView, at: number, row: number): void {
    const sequence = wire.u64(view, at + 8);
    const flags = view.getUint8(at + 3);
    if (!this.#follows(this.trades, row, wire.TRADE, sequence, flags)) return;
    const index = this.outbox.trade();
    const list = this.outbox.trades;
    const tradeId = wire.u64(view, at + 48);
    if (tradeId === Infinity) this.#wide(wire.big(view, at + 48, false), row, wire.TRADE, 2);
    list.row[index] = row;
    list.px[index] = this.#mantissa(view, at + 32, row, wire.TRADE, 0);
    list.sz[index] = this.#mantissa(view, at + 40, row, wire.TRADE, 1);
    list.tradeId[index] = tradeId;
    list.side[index] = view.getUint8(at + 56);
    list.sequence[index] = sequence;
    list.flags[index] = flags;
    list.eventMs[index] = wire.wholeMs(view, at + 16);
    list.eventNs[index] = wire.restNs(view, at + 16);
    list.recvMs[index] = wire.wholeMs(view, at + 24);
    list.recvNs[index] = wire.restNs(view, at + 24);
    this.outbox.touch(row, CHANGED.trade);
  }

  #raw(view: DataView, at: number, row: number): void {
    const sequence = wire.u64(view, at + 8);
    if (!this.#follows(this.raws, row, wire.RAW, sequence, view.getUint8(at + 3))) return;
    const from = view.byteOffset + at + 40;
    const payload = new Uint8Array(view.buffer.slice(from, from + view.getUint32(at + 32, true)) as ArrayBuffer);
    this.outbox.pushRaw({ row, sequence, recvMs: wire.wholeMs(view, at + 24), payload });
  }

  #book(view: DataView, at: number, row: number): void {
    const sequence = wire.u64(view, at + 8);
    const flags = view.getUint8(at + 3);
    const whole = wire.letter(view, at + 34) === "S";
    let book = this.books.get(row);
    if (book === undefined) this.books.set(row, (book = new BookState()));
    if (!this.#applies(book, row, sequence, flags, whole)) return;
    const was = book.suspect;
    if (whole) {
      book.bids.length = book.asks.length = 0;
      book.broken = false;
    }
    book.sequence = sequence;
    book.maybeBad = (flags & wire.MAYBE_BAD_BOOK) !== 0;
    book.eventMs = wire.wholeMs(view, at + 16);
    book.recvMs = wire.wholeMs(view, at + 24);
    for (let index = 0; index < wire.levels(view, at); index++) this.#level(view, at, index, book, row);
    this.outbox.touch(row, CHANGED.book);
    if (was !== book.suspect) this.events.status(row);
  }

  #applies(book: BookState, row: number, sequence: number, flags: number, whole: boolean): boolean {
    if (whole) return sequence > book.sequence || book.broken || book.sequence === 0;
    if (book.broken || sequence <= book.sequence) return false;
    // A merged change covers what it skips; any other has to follow on what we have.
    if ((flags & wire.CONFLATED) !== 0 || sequence === book.sequence + 1) return true;
    this.#gap(row, wire.BOOK, book.sequence + 1, sequence - 1, "order");
    this.#break(row);
    return false;
  }

  #level(view: DataView, at: number, index: number, book: BookState, row: number): void {
    const level = wire.levelAt(at, index);
    const [price, size] = [wire.i64(view, level), wire.i64(view, level + 8)];
    if (!Number.isFinite(price) || !Number.isFinite(size)) {
      // What cannot be told apart cannot be kept in order: the book says that it is wrong, and the client hears it.
      book.maybeBad = true;
      this.events.inexact(row, wire.BOOK);
      return;
    }
    (wire.letter(view, level + 16) === "B" ? book.bids : book.asks).set(price, size);
  }

  #shown(ladder: Ladder): number {
    return Math.min(ladder.length, this.bookDepth);
  }

  #writeBook(row: number, values: Float64Array, at: number): number {
    const book = this.books.get(row);
    const head = at;
    values.fill(0, head, head + BOOK_VALUES);
    at += BOOK_VALUES;
    if (book === undefined) return at;
    values[head + 2] = book.bids.length;
    values[head + 3] = book.asks.length;
    values[head + 4] = book.sequence;
    values[head + 5] = book.eventMs;
    values[head + 6] = book.recvMs;
    values[head + 7] = book.suspect ? 1 : 0;
    for (const [index, ladder] of [book.bids, book.asks].entries()) {
      const shown = (values[head + index] = this.#shown(ladder));
      for (let place = 0; place < shown; place++) {
        values[at + place] = ladder.px[place];
        values[at + shown + place] = ladder.sz[place];
      }
      at += 2 * shown;
    }
    return at;
  }
}

function append(from: Float64Array, row: number, width: number, to: Float64Array, at: number): number {
  const start = row * width;
  for (let index = 0; index < width; index++) to[at + index] = from[start + index];
  return at + width;
}
