/**
 * The changes since the last pull, on the stream side.
 *
 * What always holds: its size is bounded. It has the newest value of each row and channel once, however often that
 * changes; of trades and raw records at most the backlog, where the oldest are dropped first and counted. Nothing is
 * allocated per update once the arrays have grown.
 */

import { over, rowBytes, type Columns } from "./columns";
import type { Batch } from "./messages";
import type { Book } from "./types";

const RAW_BYTES_MAX = 4 << 20;
const GAPS_MAX = 10_000;
const SENT_MAX = 256;

/** Values of one channel, as columns that grow. */
export class List {
  length = 0;
  columns!: Columns;
  buffer!: ArrayBuffer;
  rows = 0;

  constructor(readonly channel: number) {
    this.use(new ArrayBuffer(64 * rowBytes(channel)));
  }

  use(buffer: ArrayBuffer): void {
    this.buffer = buffer;
    this.columns = over(this.channel, buffer);
    this.rows = this.columns.row.length;
    this.length = 0;
  }

  /** Adds an entry; returns its index. At the limit it drops the oldest quarter, and calls `dropped` with its size. */
  add(limit: number, dropped: (entries: number) => void): number {
    if (this.length < this.rows) return this.length++;
    const { columns, length } = this;
    if (length < limit) {
      this.use(new ArrayBuffer(Math.min(length * 2, limit) * rowBytes(this.channel)));
      for (const name in columns) this.columns[name].set(columns[name]);
      return (this.length = length + 1) - 1;
    }
    const oldest = length >> 2;
    for (const name in columns) columns[name].copyWithin(0, oldest);
    dropped(oldest);
    this.length -= oldest - 1;
    return this.length - 1;
  }
}

export class Outbox {
  readonly lists = [1, 2, 3].map((channel) => new List(channel));
  /** Rows whose books have changed. */
  readonly books = new Set<number>();
  /** The next batch, but for its lists and books. */
  pending = emptyBatch();
  #rawBytes = 0;
  /** A multiple of 8, for the columns' alignment. */
  readonly #tradesMax: number;

  constructor(readonly backlog: number) {
    this.#tradesMax = Math.ceil(backlog / 8) * 8;
  }

  get empty(): boolean {
    const { states, defined, answers, gaps, raw, gone } = this.pending;
    const lengths = [states, gaps, raw, gone].reduce((sum, list) => sum + list.length, 0);
    const others = this.books.size + defined.size + answers.size + lengths;
    return others === 0 && this.lists.every((list) => list.length === 0);
  }

  /** Drops the pending values of a row but for trades that are kept; without a row, all of them. */
  purge(row?: number, keeps?: (trades: Columns, index: number) => boolean): void {
    for (const list of this.lists) {
      const { channel, columns, length } = list;
      list.length = 0;
      for (let at = 0; at < length; at++) {
        const isDue = (row ?? columns.row[at]) === columns.row[at];
        if (isDue && !(channel === 2 && keeps?.(columns, at))) continue;
        for (const name in columns) columns[name][list.length] = columns[name][at];
        list.length++;
      }
      if (channel === 2) this.pending.dropped += length - list.length;
    }
  }

  /** Adds a value to the list of its channel; returns its index. */
  add(channel: number): number {
    const drop = (entries: number): void => void (this.pending.dropped += entries);
    return this.lists[channel - 1].add(channel === 2 ? this.#tradesMax : Infinity, drop);
  }

  gap(gap: Batch["gaps"][number]): void {
    if (this.pending.gaps.length < GAPS_MAX) this.pending.gaps.push(gap);
  }

  pushRaw(record: Batch["raw"][number]): void {
    const { raw } = this.pending;
    raw.push(record);
    this.#rawBytes += record.payload.length;
    while (this.#rawBytes > RAW_BYTES_MAX || raw.length > this.backlog) {
      this.#rawBytes -= raw.shift()!.payload.length;
      this.pending.dropped++;
    }
  }

  /** Notes when a packet was sent and received. */
  packet(sentMs: number, receivedMs: number): void {
    const { pending } = this;
    if (pending.sent.length < SENT_MAX) pending.sent.push(sentMs);
    pending.oldestMs ||= receivedMs;
  }

  /** Returns all changes as a batch. `spent` is a batch that the page side has used: its arrays are filled next. */
  take(spent: Batch | null, bookOf: (row: number) => Book): Batch {
    const { lists, pending } = this;
    pending.buffers = lists.map((list) => list.buffer);
    pending.lengths = lists.map((list) => list.length);
    pending.books = [...this.books].map(bookOf);
    lists.forEach((list, index) => list.use(spent?.buffers[index] ?? new ArrayBuffer(list.buffer.byteLength)));
    this.books.clear();
    this.#rawBytes = 0;
    this.pending = emptyBatch();
    return pending;
  }
}

function emptyBatch(): Batch {
  return {
    ...{ buffers: [], lengths: [], books: [], sent: [], oldestMs: 0, dropped: 0, gaps: [], raw: [], states: [] },
    ...{ gone: [], defined: new Map(), answers: new Map(), cleared: new Set() },
  };
}
