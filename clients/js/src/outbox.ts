/**
 * What has changed since the last pull, on the stream's side.
 *
 * What always holds: it is bounded. A row stands in it once, however often it changes; of trades and raw records there
 * are at most so many, and the oldest go first, counted. Nothing is allocated per update once the arrays have grown.
 */

import { bytesOf, capacity, over, TRADE_LIST, type TradeRows } from "./columns";
import type { Batch, RawGap } from "./messages";
import type { Instrument } from "./types";

const RAW_BYTES_MAX = 4 << 20;
const GAPS_MAX = 10_000;
const SENT_MAX = 256;

export class Outbox {
  length = 0;
  rows = new Uint32Array(64);
  /** By row: bits of CHANGED. */
  what = new Uint8Array(64);
  trades!: TradeRows;
  tradesLength = 0;
  dropped = 0;
  oldestMs = 0;
  defined = new Map<number, Instrument>();
  gaps: RawGap[] = [];
  raw: Batch["raw"] = [];
  wide = new Map<number, bigint>();
  #tradesBuffer!: ArrayBuffer;
  #tradesCapacity = 0;
  #sent = new Float64Array(SENT_MAX);
  #sentLength = 0;
  #rawBytes = 0;
  #values = new Float64Array(1024);
  #spare: Batch | null = null;

  constructor(readonly tradesMax: number) {
    this.#takeTrades(new ArrayBuffer(bytesOf(TRADE_LIST, 64)), 64);
  }

  get empty(): boolean {
    return this.length + this.tradesLength + this.gaps.length + this.raw.length + this.defined.size === 0;
  }

  /** Notes that something of a row has changed. */
  touch(row: number, bit: number): void {
    if (row >= this.what.length) this.#growRows(row + 1);
    if (this.what[row] === 0) this.rows[this.length++] = row;
    this.what[row] |= bit;
  }

  /** The place of a new trade in {@link trades}. */
  trade(): number {
    if (this.tradesLength === this.#tradesCapacity) this.#growTrades();
    return this.tradesLength++;
  }

  gap(gap: RawGap): void {
    if (this.gaps.length < GAPS_MAX) this.gaps.push(gap);
  }

  pushRaw(record: Batch["raw"][number]): void {
    this.raw.push(record);
    this.#rawBytes += record.payload.length;
    while (this.#rawBytes > RAW_BYTES_MAX || this.raw.length > this.tradesMax) {
      this.#rawBytes -= this.raw.shift()!.payload.length;
      this.dropped++;
    }
  }

  sent(ms: number, receivedMs: number): void {
    if (this.#sentLength < SENT_MAX) this.#sent[this.#sentLength++] = ms;
    if (this.oldestMs === 0) this.oldestMs = receivedMs;
  }

  /** Takes arrays back that the other side is done with. */
  recycle(spent: Batch | null): void {
    this.#spare = spent ?? this.#spare;
  }

  /** Hands over all there is; `write` appends the values of a row at a place and returns the next place. */
  take(write: (row: number, what: number, values: Float64Array, at: number) => number, room: number): Batch {
    const spare = this.#spare;
    this.#spare = null;
    const rows = spare !== null && spare.rows.length >= this.length ? spare.rows : new Uint32Array(this.what.length);
    const what = spare !== null && spare.what.length >= this.length ? spare.what : new Uint8Array(this.what.length);
    let values = spare?.values ?? this.#values;
    if (values.length < room) values = new Float64Array(capacity(room));
    this.#values = new Float64Array(0);
    let at = 0;
    for (let index = 0; index < this.length; index++) {
      const row = this.rows[index];
      rows[index] = row;
      what[index] = this.what[row];
      at = write(row, this.what[row], values, at);
      this.what[row] = 0;
    }
    const batch: Batch = {
      length: this.length,
      rows,
      what,
      values,
      trades: this.#tradesBuffer,
      tradesLength: this.tradesLength,
      tradesCapacity: this.#tradesCapacity,
      dropped: this.dropped,
      sent: this.#sent,
      sentLength: this.#sentLength,
      oldestMs: this.oldestMs,
      defined: [...this.defined.values()],
      gaps: this.gaps,
      raw: this.raw,
      wide: [...this.wide],
    };
    this.#reset(spare);
    return batch;
  }

  #reset(spare: Batch | null): void {
    if (spare !== null) this.#takeTrades(spare.trades, spare.tradesCapacity);
    else this.#takeTrades(new ArrayBuffer(this.#tradesBuffer.byteLength), this.#tradesCapacity);
    this.#sent = spare?.sent ?? new Float64Array(SENT_MAX);
    this.length = this.tradesLength = this.dropped = this.oldestMs = this.#sentLength = this.#rawBytes = 0;
    this.defined.clear();
    this.gaps = [];
    this.raw = [];
    this.wide.clear();
  }

  #growRows(rows: number): void {
    const [list, what] = [new Uint32Array(capacity(rows)), new Uint8Array(capacity(rows))];
    list.set(this.rows);
    what.set(this.what);
    this.rows = list;
    this.what = what;
  }

  #takeTrades(buffer: ArrayBuffer, rows: number): void {
    this.#tradesBuffer = buffer;
    this.#tradesCapacity = rows;
    this.trades = over(TRADE_LIST, rows, buffer) as TradeRows;
  }

  /** Makes room: doubles, and at the limit lets the oldest quarter go. */
  #growTrades(): void {
    const had = this.trades;
    if (this.#tradesCapacity < this.tradesMax) {
      const rows = Math.min(this.#tradesCapacity * 2, Math.ceil(this.tradesMax / 8) * 8);
      this.#takeTrades(new ArrayBuffer(bytesOf(TRADE_LIST, rows)), rows);
      for (const name in had) this.trades[name].set(had[name]);
      return;
    }
    const gone = this.#tradesCapacity >> 2;
    for (const name in had) had[name].copyWithin(0, gone);
    this.tradesLength -= gone;
    this.dropped += gone;
  }
}
