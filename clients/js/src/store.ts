/**
 * The stream's state by row, on the side that reads packets: directory, sequences, books.
 *
 * What always holds: a symbol has one row for the life of the client; ids of the server are of one epoch. A record
 * whose sequence is not above the one we have is a repetition and is passed over. A hole in a log channel that no Gap
 * announced is announced here; a book with a hole is suspect until it is replaced whole.
 *
 * It knows nothing of sockets and of time. Values go to the outbox, which keeps the newest of each row and channel;
 * here are only their sequences. Cost: a record of state is some twelve reads and as many writes.
 */

import { FIELDS } from "./columns";
import { Ladder } from "./ladder";
import { NEW_STATE, wideKey } from "./messages";
import { Outbox } from "./outbox";
import type { Book, Instrument } from "./types";
import * as wire from "./wire";

/** A book and how far it can be trusted. */
class OpenBook {
  bids = new Ladder(-1);
  asks = new Ladder(1);
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
  readonly books = new Map<number, OpenBook>();
  /** By row: the Status letter of this epoch as a character code, 0 where nothing was said. */
  status: number[] = [];
  feedStatus = 0;
  /** Rows that the server of this epoch has defined. */
  readonly known = new Set<number>();
  updates = 0;
  conflated = 0;
  gaps = 0;
  /** By row: index into STATES. */
  readonly #state: number[] = [];
  /** By channel from 1 and row: the last sequence. */
  #sequences: number[][] = lists();
  /** By channel from 1 and row: one above the place of its value in the outbox, 0 where none waits. */
  readonly #places: number[][] = lists();
  /** Rows by id of this epoch. */
  readonly #ids = new Map<number, number>();

  constructor(
    readonly outbox: Outbox,
    readonly bookDepth: number,
    readonly events: StoreEvents,
  ) {}

  /** Sequences and ids start anew. What was shown stays, until it is replaced; holes in logs are told. */
  newEpoch(): void {
    for (const channel of [wire.TRADE, wire.RAW]) {
      this.#sequences[channel].forEach((sequence, row) => sequence > 0 && this.#gap(row, channel, 0, 0, "resync"));
    }
    this.#ids.clear();
    this.known.clear();
    this.#sequences = lists();
    this.status = [];
    this.feedStatus = 0;
  }

  /** Nobody wants a channel of a row any more: what continuity meant there means nothing now. */
  forget(row: number, channel: number): void {
    this.#sequences[channel][row] = 0;
    if (channel === wire.BOOK) this.books.delete(row);
  }

  /** Takes in a packet's records. Throws a WireError where the layout is broken. */
  ingest(view: DataView): void {
    wire.eachRecord(view, (at, type) => {
      const id = view.getUint32(at + 4, true);
      const row = this.#ids.get(id) ?? -1;
      if (type === wire.DEFINITION) return this.#define(view, at, id);
      if (type === wire.STATUS) return this.#status(view.getUint8(at + 32), id, row);
      if (type === wire.HEARTBEAT) return;
      if (row < 0) throw new wire.WireError(`instrument ${id} before its definition`);
      if (type === wire.GAP) return this.#announced(view, at, row);
      this.updates++;
      const flags = view.getUint8(at + 3);
      if ((flags & wire.CONFLATED) !== 0) this.conflated++;
      if (type === wire.BOOK) return this.#book(view, at, row, flags);
      const sequences = this.#sequences[type];
      const [had, sequence] = [sequences[row] ?? 0, wire.u64(view, at + 8)];
      if (sequence <= had) return;
      sequences[row] = sequence;
      if ((type === wire.TRADE || type === wire.RAW) && had > 0 && sequence > had + 1) {
        this.#gap(row, type, had + 1, sequence - 1, (flags & wire.SNAPSHOT) !== 0 ? "resync" : "order");
      }
      if (type === wire.RAW) this.#raw(view, at, row, sequence);
      else this.#value(view, at, row, type);
    });
  }

  /** Everything that waits, as a batch. */
  take(spent: Parameters<Outbox["take"]>[0]): ReturnType<Outbox["take"]> {
    for (const { channel, columns, length } of this.outbox.lists) {
      for (let index = 0; index < length; index++) this.#places[channel][columns.row[index]] = 0;
    }
    return this.outbox.take(spent, this.#bookOf);
  }

  setState(row: number, state: number): void {
    if ((this.#state[row] ?? NEW_STATE) === state) return;
    this.#state[row] = state;
    this.outbox.states.set(row, state);
  }

  #define(view: DataView, at: number, id: number): void {
    const symbolBytes = view.getUint8(at + 35);
    const symbol = wire.text(view, at + 64, symbolBytes);
    const row = this.rows.get(symbol) ?? this.instruments.length;
    this.rows.set(symbol, row);
    const instrument: Instrument = {
      row,
      symbol,
      venue: wire.text(view, at + 64 + symbolBytes, view.getUint8(at + 36)),
      pxExp: view.getInt8(at + 32),
      szExp: view.getInt8(at + 33),
      status: wire.letter(view, at + 34),
      tickSize: wire.i64(view, at + 40),
      lotSize: wire.i64(view, at + 48),
    };
    this.#ids.set(id, row);
    this.known.add(row);
    this.instruments[row] = instrument;
    this.outbox.defined.set(row, instrument);
    this.events.status(row);
  }

  #status(letter: number, id: number, row: number): void {
    if (id === 0) this.feedStatus = letter;
    else if (row >= 0) this.status[row] = letter;
    else return;
    this.events.status(id === 0 ? -1 : row);
  }

  #announced(view: DataView, at: number, row: number): void {
    const channel = view.getUint8(at + 48);
    const [from, to] = [wire.u64(view, at + 32), wire.u64(view, at + 40)];
    const letter = wire.letter(view, at + 49);
    const isLog = channel === wire.TRADE || channel === wire.RAW;
    if (isLog && to <= (this.#sequences[channel][row] ?? 0)) return;
    if (isLog) this.#sequences[channel][row] = to;
    this.#gap(row, channel, from, to, letter === "S" ? "slow" : letter === "O" ? "overrun" : "feed");
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
    this.outbox.books.add(row);
    this.events.status(row);
    this.events.broken(row);
  }

  /** A quote, trade or ticker. Of state the newest takes the place of what waits. */
  #value(view: DataView, at: number, row: number, type: number): void {
    const places = this.#places[type];
    const index = (type === wire.TRADE ? 0 : (places[row] ?? 0)) - 1;
    const to = index < 0 ? this.outbox.add(type) : index;
    places[row] = to + 1;
    const { columns } = this.outbox.lists[type - 1];
    FIELDS[type].forEach((name, field) => {
      // A trade's id is the only one without a sign.
      const signed = type !== wire.TRADE || field < 2;
      const value = (signed ? wire.i64 : wire.u64)(view, at + 32 + field * 8);
      columns[name][to] = value;
      if (value !== Infinity && value !== -Infinity) return;
      this.outbox.wide.set(wideKey(row, type, field), wire.big(view, at + 32 + field * 8, signed));
      this.events.inexact(row, type);
    });
    columns.row[to] = row;
    columns.sequence[to] = wire.u64(view, at + 8);
    columns.flags[to] = view.getUint8(at + 3);
    columns.side[to] = type === wire.TRADE ? view.getUint8(at + 56) : 0;
    columns.eventMs[to] = wire.wholeMs(view, at + 16);
    columns.eventNs[to] = wire.restNs(view, at + 16);
    columns.recvMs[to] = wire.wholeMs(view, at + 24);
    columns.recvNs[to] = wire.restNs(view, at + 24);
  }

  #raw(view: DataView, at: number, row: number, sequence: number): void {
    const from = view.byteOffset + at + 40;
    const payload = new Uint8Array(view.buffer as ArrayBuffer, from, view.getUint32(at + 32, true)).slice();
    this.outbox.pushRaw({ row, sequence, recvMs: wire.wholeMs(view, at + 24), payload });
  }

  #book(view: DataView, at: number, row: number, flags: number): void {
    const sequence = wire.u64(view, at + 8);
    const whole = wire.letter(view, at + 34) === "S";
    let book = this.books.get(row);
    if (book === undefined) this.books.set(row, (book = new OpenBook()));
    if (!this.#applies(book, row, sequence, flags, whole)) return;
    const was = book.suspect;
    if (whole) {
      book.bids = new Ladder(-1);
      book.asks = new Ladder(1);
      book.broken = false;
    }
    this.#sequences[wire.BOOK][row] = sequence;
    book.maybeBad = (flags & wire.MAYBE_BAD_BOOK) !== 0;
    book.eventMs = wire.wholeMs(view, at + 16);
    book.recvMs = wire.wholeMs(view, at + 24);
    for (let index = 0; index < wire.levels(view, at); index++) this.#level(view, at + 40 + index * 24, book, row);
    this.outbox.books.add(row);
    if (was !== book.suspect) this.events.status(row);
  }

  #applies(book: OpenBook, row: number, sequence: number, flags: number, whole: boolean): boolean {
    const had = this.#sequences[wire.BOOK][row] ?? 0;
    if (whole) return sequence > had || book.broken;
    if (book.broken || sequence <= had) return false;
    // A merged change covers what it skips; any other has to follow on what we have.
    if ((flags & wire.CONFLATED) !== 0 || sequence === had + 1) return true;
    this.#gap(row, wire.BOOK, had + 1, sequence - 1, "order");
    this.#break(row);
    return false;
  }

  #level(view: DataView, at: number, book: OpenBook, row: number): void {
    const [price, size] = [wire.i64(view, at), wire.i64(view, at + 8)];
    if (Number.isFinite(price + size)) (wire.letter(view, at + 16) === "B" ? book.bids : book.asks).set(price, size);
    else {
      // What cannot be told apart cannot be kept in order: the book says that it is wrong, and the client hears it.
      book.maybeBad = true;
      this.events.inexact(row, wire.BOOK);
    }
  }

  #bookOf = (row: number): Book => {
    const { bids, asks, eventMs, recvMs, suspect } = this.books.get(row) ?? new OpenBook();
    return {
      ...{ row, eventMs, recvMs, suspect },
      sequence: this.#sequences[wire.BOOK][row] ?? 0,
      bids: bids.top(this.bookDepth),
      asks: asks.top(this.bookDepth),
      bidLevels: bids.px.length,
      askLevels: asks.px.length,
    };
  };
}

/** A list for each channel from 1. */
function lists(): number[][] {
  return [[], [], [], [], [], []];
}
