/**
 * The state of the stream by row, on the stream side: directory, sequences, books.
 *
 * What always holds: a symbol keeps its row until the server releases the instrument; one that is defined again under
 * the same symbol then gets a row of its own. The server's ids hold for one epoch. A record
 * whose sequence is not above the last one is a repetition and is skipped. A sequence gap in a log channel that the
 * server has not announced becomes a gap here; a book with a gap is suspect until a snapshot replaces it.
 *
 * It uses neither sockets nor time. Values go to the outbox, which has the newest of each row and channel; the store
 * keeps only their sequences. Cost: a record of state is about twelve reads and as many writes.
 */

import { FIELDS, rescale, REST } from "./columns";
import { Ladder } from "./ladder";
import { NO_COUNTERS } from "./messages";
import { Outbox } from "./outbox";
import type { Book, Channel, Instrument, InstrumentState } from "./types";
import * as wire from "./wire";

/** By channel from 1: the columns of rests, in the order of the wire. */
const RESTS = FIELDS.map((names) => names.map((name) => name + REST));

/** By the letter of a Gap's reason, and of a Status. */
const REASONS: Record<string, string | undefined> = { S: "slow", O: "overrun" };
const STATES: Record<string, InstrumentState | undefined> = { E: "ENDED", H: "HALTED", S: "STALE", L: undefined };
const RELEASED = "R";

/** A book, and whether it may be wrong. */
class OpenBook {
  /** Bids and asks. */
  sides = [new Ladder(-1), new Ladder(1)];
  eventMs = 0;
  recvMs = 0;
  /** It has a sequence gap: only a snapshot repairs it. */
  broken = false;
  /** Its exponents have changed, and the server has not sent it in the new ones yet. */
  rescaled = false;
  /** Flagged MAYBE_BAD_BOOK by the server. */
  maybeBad = false;
  /** A price was beyond 2^53 and not exact, so that two levels may be one here: only a snapshot repairs it. */
  blurred = false;

  get suspect(): boolean {
    return this.broken || this.rescaled || this.maybeBad || this.blurred;
  }
}

/** Events that the engine acts on. */
export interface StoreEvents {
  /** A book has a sequence gap: it needs a snapshot. */
  broken(row: number): void;
  /** A value has come that a number does not hold exactly; channel from 1. */
  rounded(row: number, channel: number): void;
  /** An instrument was defined, or was released. */
  known(symbol: string, isDefined: boolean): void;
}

export class Store {
  readonly counters = { ...NO_COUNTERS };
  /** The states of instruments may have changed. */
  statesDirty = false;
  /** By row, but for released ones. */
  readonly instruments = new Map<number, Instrument>();
  #nextRow = 0;
  readonly #rows = new Map<string, number>();
  readonly #books = new Map<number, OpenBook>();
  /** The Status letter by row, and of the whole feed at -1. It has the rows that are defined in this epoch. */
  readonly #statuses = new Map<number, string>();
  readonly #states: InstrumentState[] = [];
  /** By channel from 1 and row: the last sequence. */
  #sequences = perChannel();
  /** By channel from 1 and row: the index of its value in the outbox, valid if that entry has the same row. */
  readonly #outboxIndex = perChannel();
  /** Rows by id of this epoch. */
  readonly #ids = new Map<number, number>();

  constructor(
    readonly outbox: Outbox,
    readonly bookDepth: number,
    readonly events: StoreEvents,
  ) {}

  /**
   * Resets sequences, ids and books, with a gap for each log. Values that were delivered stay until the instrument is
   * defined again; pending values are dropped.
   */
  newEpoch(): void {
    for (const channel of [wire.TRADE, wire.RAW]) {
      this.#sequences[channel].forEach((sequence, row) => sequence > 0 && this.#gap(row, channel, 0, 0, "resync"));
    }
    this.#ids.clear();
    this.#statuses.clear();
    this.#books.clear();
    this.#sequences = perChannel();
    this.outbox.purge();
  }

  /** Resets the sequences of a row's channels but for those that are still subscribed. */
  forget(row: number, kept: readonly Channel[]): void {
    wire.CHANNELS.forEach((channel, index) => {
      if (!kept.includes(channel)) this.#sequences[index + 1][row] = 0;
    });
    if (!kept.includes("book")) this.#books.delete(row);
  }

  /** Takes the records of a packet. Throws a WireError where the layout is broken. */
  ingest(view: DataView): void {
    const { counters } = this;
    counters.bytes += view.byteLength;
    wire.eachRecord(view, (at, type) => {
      const id = view.getUint32(at + 4, true);
      // The id 0 stands for the whole feed.
      const row = id === 0 ? -1 : this.#ids.get(id);
      if (type === wire.DEFINITION) return this.#define(view, at, id);
      if (type === wire.STATUS) return this.#status(row, wire.letter(view, at + 32));
      if (type === wire.HEARTBEAT) return;
      if (row === undefined || row < 0) throw new wire.WireError(`instrument ${id} before its definition`);
      if (!this.instruments.has(row)) return;
      if (type === wire.GAP) return this.#announcedGap(view, at, row);
      const flags = view.getUint8(at + 3);
      counters.updates++;
      if (flags & wire.CONFLATED) counters.conflated++;
      if (type === wire.BOOK) return this.#book(view, at, row, flags);
      const sequences = this.#sequences[type];
      const [last, sequence] = [sequences[row] ?? 0, wire.sequence(view, at + 8)];
      if (sequence <= last) return;
      sequences[row] = sequence;
      if (isLog(type) && last > 0 && sequence > last + 1) {
        this.#gap(row, type, last + 1, sequence - 1, flags & wire.SNAPSHOT ? "resync" : "order");
      }
      if (type === wire.RAW) this.#raw(view, at, row, sequence);
      else this.#value(view, at, row, type);
    });
  }

  /** All pending changes, as a batch. */
  take(spent: Parameters<Outbox["take"]>[0]): ReturnType<Outbox["take"]> {
    return this.outbox.take(spent, this.#bookOf);
  }

  /** Adds the states that have changed to the next batch. */
  setStates(stateOf: (row: number) => InstrumentState): void {
    this.statesDirty = false;
    for (const row of this.instruments.keys()) {
      const state = stateOf(row);
      if (state !== (this.#states[row] ?? "RESYNCING")) this.outbox.pending.states.push([row, state]);
      this.#states[row] = state;
    }
  }

  /** The state of a row whose values are synced: by its status, the feed's, and its book. */
  stateOf(row: number): InstrumentState {
    const status = this.#statuses.get(row);
    // The snapshot of a pattern over it is complete, and did not have it.
    if (status === undefined) return "UNKNOWN";
    const own = status !== "E" && this.instruments.get(row)!.status === "H" ? "H" : status;
    const suspect = this.#books.get(row)?.suspect ? "RESYNCING" : "LIVE";
    return STATES[own] ?? STATES[this.#statuses.get(-1)!] ?? suspect;
  }

  #define(view: DataView, at: number, id: number): void {
    const symbolBytes = view.getUint8(at + 35);
    const symbol = wire.text(view, at + 64, symbolBytes);
    const known = this.#rows.get(symbol);
    // Under another id of the same epoch: the release was missed while the connection was lost.
    if (this.#statuses.has(known!) && this.#ids.get(id) !== known) this.release(symbol);
    const row = this.#rows.get(symbol) ?? this.#nextRow++;
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
    const former = this.instruments.get(row) ?? instrument;
    const shifts = [former.pxExp - instrument.pxExp, former.szExp - instrument.szExp];
    // The first definition in this epoch: values of the former epoch go.
    if (former !== instrument && !this.#statuses.has(row)) this.outbox.pending.cleared.add(row);
    else if (shifts.some(Boolean)) this.#rescale(row, shifts);
    this.#ids.set(id, row);
    this.#statuses.set(row, this.#statuses.get(row) ?? "");
    this.instruments.set(row, instrument);
    this.outbox.pending.defined.set(row, instrument);
    this.statesDirty = true;
    this.events.known(symbol, true);
  }

  /**
   * The exponents have changed. The server sends quote, ticker and book again, perhaps with the sequences that they
   * have already: those at the old exponents are dropped. Trades are scaled.
   */
  #rescale(row: number, shifts: readonly number[]): void {
    this.outbox.purge(row, (trades, index) => rescale(trades, index, shifts));
    for (const channel of [wire.QUOTE, wire.TICKER]) if (this.#sequences[channel][row]) this.#sequences[channel][row]--;
    const former = this.#books.get(row);
    if (!former) return;
    const book = new OpenBook();
    book.broken = former.broken;
    book.rescaled = true;
    this.#books.set(row, book);
    this.outbox.books.add(row);
  }

  #status(row: number | undefined, letter: string): void {
    const symbol = this.instruments.get(row!)?.symbol;
    if (symbol !== undefined && letter === RELEASED) return this.release(symbol);
    // A letter of a later version leaves the state as it is.
    if (!(letter in STATES) || (row !== -1 && symbol === undefined)) return;
    this.#statuses.set(row!, letter);
    this.statesDirty = true;
  }

  /** The instrument's id carries nothing more. Its pending values are still delivered. */
  release(symbol: string): void {
    const row = this.#rows.get(symbol);
    if (row === undefined || !this.#statuses.has(row)) return;
    this.forget(row, []);
    this.instruments.delete(row);
    this.#rows.delete(symbol);
    this.#statuses.delete(row);
    this.outbox.books.delete(row);
    this.outbox.pending.gone.push(row);
    this.events.known(symbol, false);
  }

  #announcedGap(view: DataView, at: number, row: number): void {
    const channel = view.getUint8(at + 48);
    const [from, to] = [wire.sequence(view, at + 32), wire.sequence(view, at + 40)];
    if (isLog(channel)) {
      if (to <= (this.#sequences[channel][row] ?? 0)) return;
      this.#sequences[channel][row] = to;
    }
    this.#gap(row, channel, from, to, REASONS[wire.letter(view, at + 49)] ?? "feed");
    if (channel === wire.BOOK) this.#breakBook(row);
  }

  #gap(row: number, channel: number, from: number, to: number, reason: string): void {
    this.counters.gaps++;
    this.outbox.gap([row, channel, from, to, reason]);
  }

  #breakBook(row: number): void {
    const book = this.#books.get(row);
    if (!book || book.broken) return;
    book.broken = true;
    this.outbox.books.add(row);
    this.statesDirty = true;
    this.events.broken(row);
  }

  /** A quote, trade or ticker. A quote or ticker overwrites the pending one of its row. */
  #value(view: DataView, at: number, row: number, type: number): void {
    const list = this.outbox.lists[type - 1];
    let to = this.#outboxIndex[type][row] ?? 0;
    if (type === wire.TRADE || to >= list.length || list.columns.row[to] !== row) to = this.outbox.add(type);
    this.#outboxIndex[type][row] = to;
    const { columns } = list;
    FIELDS[type].forEach((name, field) => {
      const from = at + 32 + field * 8;
      // Only a trade's id is unsigned.
      const signed = name !== "tradeId";
      const value = (signed ? wire.i64 : wire.u64)(view, from);
      const rest = wire.rest(view, from, value, signed);
      columns[name][to] = value;
      columns[RESTS[type][field]][to] = rest;
      if (rest) this.events.rounded(row, type);
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
    const sequence = wire.sequence(view, at + 8);
    const isSnapshot = wire.letter(view, at + 34) === wire.BookAction.Snapshot;
    let book = this.#books.get(row);
    if (!book) this.#books.set(row, (book = new OpenBook()));
    if (!this.#applies(book, row, sequence, flags, isSnapshot)) return;
    const wasSuspect = book.suspect;
    if (isSnapshot) this.#books.set(row, (book = new OpenBook()));
    this.#sequences[wire.BOOK][row] = sequence;
    book.maybeBad = (flags & wire.MAYBE_BAD_BOOK) > 0;
    book.eventMs = wire.wholeMs(view, at + 16);
    book.recvMs = wire.wholeMs(view, at + 24);
    for (let index = 0; index < wire.levels(view, at); index++) this.#level(view, at + 40 + index * 24, book, row);
    this.outbox.books.add(row);
    if (wasSuspect !== book.suspect) this.statesDirty = true;
  }

  #applies(book: OpenBook, row: number, sequence: number, flags: number, isSnapshot: boolean): boolean {
    const last = this.#sequences[wire.BOOK][row] ?? 0;
    if (isSnapshot) return sequence > last || book.broken || book.rescaled;
    // It did not come in the new exponents: requests it.
    if (book.rescaled) this.#breakBook(row);
    if (book.broken || sequence <= last) return false;
    // A conflated change covers the sequences that it skips; any other must have the next sequence.
    if (flags & wire.CONFLATED || sequence === last + 1) return true;
    this.#gap(row, wire.BOOK, last + 1, sequence - 1, "order");
    this.#breakBook(row);
    return false;
  }

  #level(view: DataView, at: number, book: OpenBook, row: number): void {
    const [price, size] = [wire.i64(view, at), wire.i64(view, at + 8)];
    const [priceRest, sizeRest] = [wire.rest(view, at, price), wire.rest(view, at + 8, size)];
    const side = wire.letter(view, at + 16) === wire.LevelSide.Bid ? 0 : 1;
    // A level without price or size is left out.
    const isWhole = price + size === price + size;
    if (isWhole) book.sides[side].set(price, size, sizeRest);
    if (!isWhole || priceRest) book.blurred = true;
    if (priceRest || sizeRest) this.events.rounded(row, wire.BOOK);
  }

  #bookOf = (row: number): Book => {
    const { sides, eventMs, recvMs, suspect, blurred } = this.#books.get(row) ?? new OpenBook();
    const [bids, asks] = sides.map((side) => side.top(this.bookDepth));
    const [bidLevels, askLevels] = sides.map((side) => side.px.length);
    const sequence = this.#sequences[wire.BOOK][row] ?? 0;
    const inexact = blurred || [bids, asks].some(({ szRest }) => szRest.some(Boolean));
    return { row, bids, asks, bidLevels, askLevels, sequence, eventMs, recvMs, suspect, inexact };
  };
}

/** An empty list for each channel from 1. */
function perChannel(): number[][] {
  return [[], [], [], [], [], []];
}

/** Channels without conflation: a missing sequence is a lost record. */
function isLog(channel: number): boolean {
  return channel === wire.TRADE || channel === wire.RAW;
}
