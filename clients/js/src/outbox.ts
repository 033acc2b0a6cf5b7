/**
 * What has changed since the last pull, on the stream's side.
 *
 * What always holds: it is bounded. The newest value of a row and channel stands in it once, however often it
 * changes; of trades and raw records there are at most so many, and the oldest go first, counted. Nothing is
 * allocated per update once the arrays have grown.
 */

import { over, rowBytes, type Columns } from "./columns";
import type { Answer, Batch } from "./messages";
import type { Book, Instrument } from "./types";

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
  readonly states = new Map<number, number>();
  readonly defined = new Map<number, Instrument>();
  readonly wide = new Map<number, bigint>();
  readonly answers = new Map<number, Answer>();
  #gaps: Batch["gaps"] = [];
  #raw: Batch["raw"] = [];
  #rawBytes = 0;
  #sent = new Float64Array(SENT_MAX);
  #sentLength = 0;
  #oldestMs = 0;
  #dropped = 0;
  /** A multiple of 8, for the columns' alignment. */
  readonly #tradesMax: number;
  readonly #drop = (entries: number): void => void (this.#dropped += entries);

  constructor(readonly backlog: number) {
    this.#tradesMax = Math.ceil(backlog / 8) * 8;
  }

  get empty(): boolean {
    const { lists, books, states, defined, answers } = this;
    const others = books.size + states.size + defined.size + answers.size + this.#gaps.length + this.#raw.length;
    return lists.reduce((sum, list) => sum + list.length, others) === 0;
  }

  /** The place of another value in the list of its channel. */
  add(channel: number): number {
    return this.lists[channel - 1].add(channel === 2 ? this.#tradesMax : Infinity, this.#drop);
  }

  gap(gap: Batch["gaps"][number]): void {
    if (this.#gaps.length < GAPS_MAX) this.#gaps.push(gap);
  }

  pushRaw(record: Batch["raw"][number]): void {
    this.#raw.push(record);
    this.#rawBytes += record.payload.length;
    while (this.#rawBytes > RAW_BYTES_MAX || this.#raw.length > this.backlog) {
      this.#rawBytes -= this.#raw.shift()!.payload.length;
      this.#dropped++;
    }
  }

  /** A packet that was sent and received at these times. */
  packet(sentMs: number, receivedMs: number): void {
    if (this.#sentLength < SENT_MAX) this.#sent[this.#sentLength++] = sentMs;
    this.#oldestMs ||= receivedMs;
  }

  /** Hands over all there is. `spent` is a batch that the other side is done with: its arrays are filled next. */
  take(spent: Batch | null, bookOf: (row: number) => Book): Batch {
    const { lists, books, defined, states, answers, wide } = this;
    const batch: Batch = {
      buffers: lists.map((list) => list.buffer),
      lengths: lists.map((list) => list.length),
      books: [...books].map(bookOf),
      sent: this.#sent,
      sentLength: this.#sentLength,
      oldestMs: this.#oldestMs,
      dropped: this.#dropped,
      defined: [...defined.values()],
      states: [...states],
      answers: [...answers],
      gaps: this.#gaps,
      raw: this.#raw,
      wide: [...wide],
    };
    lists.forEach((list, index) => list.use(spent?.buffers[index] ?? new ArrayBuffer(list.buffer.byteLength)));
    this.#sent = spent?.sent ?? new Float64Array(SENT_MAX);
    this.#sentLength = this.#oldestMs = this.#dropped = this.#rawBytes = 0;
    [this.#gaps, this.#raw] = [[], []];
    for (const waiting of [books, states, defined, wide, answers]) waiting.clear();
    return batch;
  }
}
