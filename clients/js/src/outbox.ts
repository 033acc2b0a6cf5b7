/**
 * What has changed since the last pull, on the stream's side.
 *
 * What always holds: it is bounded. The newest value of a row and channel stands in it once, however often it
 * changes; of trades and raw records there are at most so many, and the oldest go first, counted. Nothing is
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

  /** The place of another entry. At the limit the oldest quarter is let go; returns through `dropped` how many. */
  add(most: number, dropped: (entries: number) => void): number {
    if (this.length < this.rows) return this.length++;
    const { columns, length } = this;
    if (length < most) {
      this.use(new ArrayBuffer(Math.min(length * 2, most) * rowBytes(this.channel)));
      for (const name in columns) this.columns[name].set(columns[name]);
      return (this.length = length + 1) - 1;
    }
    const gone = length >> 2;
    for (const name in columns) columns[name].copyWithin(0, gone);
    dropped(gone);
    this.length -= gone - 1;
    return this.length - 1;
  }
}

export class Outbox {
  readonly lists = [1, 2, 3].map((channel) => new List(channel));
  /** Rows whose books have changed. */
  readonly books = new Set<number>();
  /** All else, as it is handed over. */
  waiting = emptyBatch();
  #rawBytes = 0;
  /** A multiple of 8, for the columns' alignment. */
  readonly #tradesMax: number;

  constructor(readonly backlog: number) {
    this.#tradesMax = Math.ceil(backlog / 8) * 8;
  }

  get empty(): boolean {
    const { states, defined, answers, gaps, raw } = this.waiting;
    const others = this.books.size + states.length + defined.size + answers.size + gaps.length + raw.length;
    return others === 0 && this.lists.every((list) => list.length === 0);
  }

  /** Lets go the values that wait, of a row or of all. */
  purge(gone?: number): void {
    for (const list of this.lists) {
      const { channel, columns, length } = list;
      list.length = 0;
      for (let at = 0; at < length; at++) {
        if ((gone ?? columns.row[at]) === columns.row[at]) continue;
        for (const name in columns) columns[name][list.length] = columns[name][at];
        list.length++;
      }
      if (channel === 2) this.waiting.dropped += length - list.length;
    }
  }

  /** The place of another value in the list of its channel. */
  add(channel: number): number {
    const drop = (entries: number): void => void (this.waiting.dropped += entries);
    return this.lists[channel - 1].add(channel === 2 ? this.#tradesMax : Infinity, drop);
  }

  gap(gap: Batch["gaps"][number]): void {
    if (this.waiting.gaps.length < GAPS_MAX) this.waiting.gaps.push(gap);
  }

  pushRaw(record: Batch["raw"][number]): void {
    const { raw } = this.waiting;
    raw.push(record);
    this.#rawBytes += record.payload.length;
    while (this.#rawBytes > RAW_BYTES_MAX || raw.length > this.backlog) {
      this.#rawBytes -= raw.shift()!.payload.length;
      this.waiting.dropped++;
    }
  }

  /** A packet that was sent and received at these times. */
  packet(sentMs: number, receivedMs: number): void {
    const { waiting } = this;
    if (waiting.sent.length < SENT_MAX) waiting.sent.push(sentMs);
    waiting.oldestMs ||= receivedMs;
  }

  /** Hands over all there is. `spent` is a batch that the other side is done with: its arrays are filled next. */
  take(spent: Batch | null, bookOf: (row: number) => Book): Batch {
    const { lists, waiting } = this;
    waiting.buffers = lists.map((list) => list.buffer);
    waiting.lengths = lists.map((list) => list.length);
    waiting.books = [...this.books].map(bookOf);
    lists.forEach((list, index) => list.use(spent?.buffers[index] ?? new ArrayBuffer(list.buffer.byteLength)));
    this.books.clear();
    this.#rawBytes = 0;
    this.waiting = emptyBatch();
    return waiting;
  }
}

function emptyBatch(): Batch {
  return {
    ...{ buffers: [], lengths: [], books: [], sent: [], oldestMs: 0, dropped: 0, gaps: [], raw: [], states: [] },
    ...{ defined: new Map(), answers: new Map(), wide: new Map(), cleared: new Set() },
  };
}
