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
import { NO_COUNTERS, wideKey } from "./messages";
import { Outbox } from "./outbox";
import type { Book, Channel, Instrument, InstrumentState } from "./types";
import * as wire from "./wire";

/** What the letters of Gaps mean, and of Statuses. */
const REASONS: Record<string, string | undefined> = { S: "slow", O: "overrun" };
const SAID: Record<string, InstrumentState | undefined> = { E: "ENDED", H: "HALTED", S: "STALE" };

/** A book and how far it can be trusted. */
class OpenBook {
  /** Bids and asks. */
  sides = [new Ladder(-1), new Ladder(1)];
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
  /** A book has a hole: it has to be sent again. */
  broken(row: number): void;
  /** A value beyond 2^53 has come; channel from 1. */
  inexact(row: number, channel: number): void;
}

export class Store {
  readonly counters = { ...NO_COUNTERS };
  /** Something has changed of what states are made of. */
  statesDirty = false;
  readonly instruments: Instrument[] = [];
  readonly #rows = new Map<string, number>();
  readonly #books = new Map<number, OpenBook>();
  /** By row and, at -1, of the whole feed: the Status letter; rows that the server of this epoch has defined. */
  readonly #statuses = new Map<number, string>();
  readonly #states: InstrumentState[] = [];
  /** By channel from 1 and row: the last sequence. */
  #sequences = lists();
  /** By channel from 1 and row: where its value is in the outbox, if it is: the place says whose it is. */
  readonly #places = lists();
  /** Rows by id of this epoch. */
  readonly #ids = new Map<number, number>();

  constructor(
    readonly outbox: Outbox,
    readonly bookDepth: number,
    readonly events: StoreEvents,
  ) {}

  /**
   * Sequences, ids and books start anew; holes in logs are told. What was shown stays until the new server defines the
   * instrument; what was not shown yet never is.
   */
  newEpoch(): void {
    for (const channel of [wire.TRADE, wire.RAW]) {
      this.#sequences[channel].forEach((sequence, row) => sequence > 0 && this.#gap(row, channel, 0, 0, "resync"));
    }
    this.#ids.clear();
    this.#statuses.clear();
    this.#books.clear();
    this.#sequences = lists();
    this.outbox.purge();
  }

  /** Nobody wants other channels of a row any more: what continuity meant there means nothing now. */
  forget(row: number, kept: readonly Channel[]): void {
    wire.CHANNELS.forEach((channel, index) => {
      if (!kept.includes(channel)) this.#sequences[index + 1][row] = 0;
    });
    if (!kept.includes("book")) this.#books.delete(row);
  }

  /** Takes in a packet's records. Throws a WireError where the layout is broken. */
  ingest(view: DataView): void {
    const { counters } = this;
    counters.bytes += view.byteLength;
    wire.eachRecord(view, (at, type) => {
      const id = view.getUint32(at + 4, true);
      // An id of 0 is the whole feed.
      const row = id === 0 ? -1 : this.#ids.get(id);
      if (type === wire.DEFINITION) return this.#define(view, at, id);
      if (type === wire.STATUS) return this.#status(row, wire.letter(view, at + 32));
      if (type === wire.HEARTBEAT) return;
      if (row === undefined || row < 0) throw new wire.WireError(`instrument ${id} before its definition`);
      if (type === wire.GAP) return this.#announced(view, at, row);
      const flags = view.getUint8(at + 3);
      counters.updates++;
      if (flags & wire.CONFLATED) counters.conflated++;
      if (type === wire.BOOK) return this.#book(view, at, row, flags);
      const sequences = this.#sequences[type];
      const [had, sequence] = [sequences[row] ?? 0, wire.u64(view, at + 8)];
      if (sequence <= had) return;
      sequences[row] = sequence;
      if (isLog(type) && had > 0 && sequence > had + 1) {
        this.#gap(row, type, had + 1, sequence - 1, flags & wire.SNAPSHOT ? "resync" : "order");
      }
      if (type === wire.RAW) this.#raw(view, at, row, sequence);
      else this.#value(view, at, row, type);
    });
  }

  /** Everything that waits, as a batch. */
  take(spent: Parameters<Outbox["take"]>[0]): ReturnType<Outbox["take"]> {
    return this.outbox.take(spent, this.#bookOf);
  }

  /** Tells of the states that have changed. */
  setStates(stateOf: (row: number) => InstrumentState): void {
    this.statesDirty = false;
    for (const { row } of this.instruments) {
      const state = stateOf(row);
      if (state !== (this.#states[row] ?? "RESYNCING")) this.outbox.waiting.states.push([row, state]);
      this.#states[row] = state;
    }
  }

  /** The state of a row whose values are here, by what the server and the venue say. */
  stateOf(row: number): InstrumentState {
    const status = this.#statuses.get(row);
    if (status === undefined) return "RESYNCING";
    const own = status !== "E" && this.instruments[row].status === "H" ? "H" : status;
    const suspect = this.#books.get(row)?.suspect ? "RESYNCING" : "LIVE";
    return SAID[own] ?? SAID[this.#statuses.get(-1)!] ?? suspect;
  }

  #define(view: DataView, at: number, id: number): void {
    const symbolBytes = view.getUint8(at + 35);
    const symbol = wire.text(view, at + 64, symbolBytes);
    const row = this.#rows.get(symbol) ?? this.instruments.length;
    this.#rows.set(symbol, row);
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
    const former = this.instruments[row];
    // What a former server said is shown no longer.
    if (former && !this.#statuses.has(row)) this.outbox.waiting.cleared.add(row);
    if (former && (former.pxExp !== instrument.pxExp || former.szExp !== instrument.szExp)) this.#rescaled(row);
    this.#ids.set(id, row);
    this.#statuses.set(row, this.#statuses.get(row) ?? "");
    this.instruments[row] = instrument;
    this.outbox.waiting.defined.set(row, instrument);
    this.statesDirty = true;
  }

  /** Mantissas that we have are not of the exponents that come: all of them go. */
  #rescaled(row: number): void {
    this.outbox.purge(row);
    this.outbox.waiting.cleared.add(row);
    this.#books.get(row)?.sides.forEach(({ px, sz }) => (px.length = sz.length = 0));
    this.#break(row);
  }

  #status(row: number | undefined, letter: string): void {
    if (row === undefined) return;
    this.#statuses.set(row, letter);
    this.statesDirty = true;
  }

  #announced(view: DataView, at: number, row: number): void {
    const channel = view.getUint8(at + 48);
    const [from, to] = [wire.u64(view, at + 32), wire.u64(view, at + 40)];
    if (isLog(channel)) {
      if (to <= (this.#sequences[channel][row] ?? 0)) return;
      this.#sequences[channel][row] = to;
    }
    this.#gap(row, channel, from, to, REASONS[wire.letter(view, at + 49)] ?? "feed");
    if (channel === wire.BOOK) this.#break(row);
  }

  #gap(row: number, channel: number, from: number, to: number, reason: string): void {
    this.counters.gaps++;
    this.outbox.gap([row, channel, from, to, reason]);
  }

  #break(row: number): void {
    const book = this.#books.get(row);
    if (!book || book.broken) return;
    book.broken = true;
    this.outbox.books.add(row);
    this.statesDirty = true;
    this.events.broken(row);
  }

  /** A quote, trade or ticker. Of state the newest takes the place of what waits. */
  #value(view: DataView, at: number, row: number, type: number): void {
    const list = this.outbox.lists[type - 1];
    let to = this.#places[type][row] ?? 0;
    if (type === wire.TRADE || to >= list.length || list.columns.row[to] !== row) to = this.outbox.add(type);
    this.#places[type][row] = to;
    const { columns } = list;
    FIELDS[type].forEach((name, field) => {
      const from = at + 32 + field * 8;
      // A trade's id is the only one without a sign.
      const signed = name !== "tradeId";
      const value = (signed ? wire.i64 : wire.u64)(view, from);
      columns[name][to] = value;
      if (wire.isExact(value)) return;
      this.outbox.waiting.wide.set(wideKey(row, type, field), wire.big(view, from, signed));
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
    const isWhole = wire.letter(view, at + 34) === "S";
    let book = this.#books.get(row);
    if (!book) this.#books.set(row, (book = new OpenBook()));
    if (!this.#applies(book, row, sequence, flags, isWhole)) return;
    const was = book.suspect;
    if (isWhole) this.#books.set(row, (book = new OpenBook()));
    this.#sequences[wire.BOOK][row] = sequence;
    book.maybeBad = (flags & wire.MAYBE_BAD_BOOK) > 0;
    book.eventMs = wire.wholeMs(view, at + 16);
    book.recvMs = wire.wholeMs(view, at + 24);
    for (let index = 0; index < wire.levels(view, at); index++) this.#level(view, at + 40 + index * 24, book, row);
    this.outbox.books.add(row);
    if (was !== book.suspect) this.statesDirty = true;
  }

  #applies(book: OpenBook, row: number, sequence: number, flags: number, isWhole: boolean): boolean {
    const had = this.#sequences[wire.BOOK][row] ?? 0;
    if (isWhole) return sequence > had || book.broken;
    if (book.broken || sequence <= had) return false;
    // A merged change covers what it skips; any other has to follow on what we have.
    if (flags & wire.CONFLATED || sequence === had + 1) return true;
    this.#gap(row, wire.BOOK, had + 1, sequence - 1, "order");
    this.#break(row);
    return false;
  }

  #level(view: DataView, at: number, book: OpenBook, row: number): void {
    const [price, size] = [wire.i64(view, at), wire.i64(view, at + 8)];
    if (Number.isFinite(price + size)) book.sides[wire.letter(view, at + 16) === "B" ? 0 : 1].set(price, size);
    else {
      // What cannot be told apart cannot be kept in order: the book says that it is wrong, and the client hears it.
      book.maybeBad = true;
      this.events.inexact(row, wire.BOOK);
    }
  }

  #bookOf = (row: number): Book => {
    const { sides, eventMs, recvMs, suspect } = this.#books.get(row) ?? new OpenBook();
    const [bids, asks] = sides.map((side) => side.top(this.bookDepth));
    const [bidLevels, askLevels] = sides.map((side) => side.px.length);
    const sequence = this.#sequences[wire.BOOK][row] ?? 0;
    return { row, bids, asks, bidLevels, askLevels, sequence, eventMs, recvMs, suspect };
  };
}

/** A list for each channel from 1. */
function lists(): number[][] {
  return [[], [], [], [], [], []];
}

/** Of these every record counts, and a hole is a loss. */
function isLog(channel: number): boolean {
  return channel === wire.TRADE || channel === wire.RAW;
}
