/** A batch into the mirror, and from there to everyone who listens: events, frames, updates. */

import { Emitter } from "./emitter";
import type { Batch } from "./messages";
import { Mirror } from "./mirror";
import type { OpenSubscription } from "./subscription";
import {
  CHANGED,
  type Channel,
  type ClientError,
  type ClientEvents,
  type Connection,
  type Frame,
  type Gap,
  type Instrument,
  type Lag,
  type TradeList,
  type Update,
} from "./types";
import { updateOf } from "./updates";
import { CHANNELS } from "./wire";

/** Who is told of changes as objects. */
interface Listener {
  readonly subscription: OpenSubscription;
  readonly tell: (update: Update) => void;
  /** It has not been told of what was there when it came. */
  isNew: boolean;
}

type Written<T> = { -readonly [K in keyof T]: T[K] };

const NO_TRADES = { length: 0, dropped: 0 } as unknown as TradeList;

export class Dispatch {
  readonly mirror = new Mirror();
  readonly events = {
    connection: new Emitter<Connection>(),
    state: new Emitter<ClientEvents["state"]>(),
    gap: new Emitter<Gap>(),
    error: new Emitter<ClientError>(),
    lag: new Emitter<Lag>(),
    instrument: new Emitter<Instrument>(),
  };
  readonly frames = new Emitter<Frame>();
  readonly #listeners = new Map<number, Listener>();
  /** One object for all frames. */
  readonly #frame: Written<Frame> = {
    ...{ now: 0, changed: new Uint32Array(0), what: new Uint8Array(0), trades: NO_TRADES, gaps: [], raw: [] },
  };

  /** Tells of the changes that a subscription covers, until it is forgotten. */
  listen(subscription: OpenSubscription, tell: (update: Update) => void, isNew: boolean): void {
    this.#listeners.set(subscription.id, { subscription, tell, isNew });
  }

  forget(id: number): void {
    this.#listeners.delete(id);
  }

  /** Hands a batch to everyone; its arrays are free afterwards. */
  apply(batch: Batch, now: number): void {
    const { mirror, events } = this;
    mirror.apply(batch);
    for (const instrument of batch.defined) events.instrument.tell(instrument);
    const symbolOf = (row: number): string => mirror.instruments.symbol(row);
    if (events.state.size > 0) {
      for (const [row] of batch.states) events.state.tell({ row, symbol: symbolOf(row), state: mirror.stateOf(row) });
    }
    const gaps = batch.gaps.map(([row, channel, from, to, reason]): Gap => {
      const name: Channel = CHANNELS[channel - 1] ?? "raw";
      return { row, symbol: symbolOf(row), channel: name, from, to, reason: reason as Gap["reason"] };
    });
    for (const gap of gaps) events.gap.tell(gap);
    if (this.frames.size > 0) this.#tellFrame(batch, now, gaps);
    for (const listener of this.#listeners.values()) this.#tellChanges(listener, batch);
  }

  /** Tells new listeners of what is there already. */
  greet(): void {
    for (const listener of this.#listeners.values()) {
      if (!listener.isNew) continue;
      listener.isNew = false;
      const { subscription } = listener;
      for (let row = 0; row < this.mirror.instruments.length; row++) {
        if (!subscription.covers(row, this.mirror.instruments.symbol(row))) continue;
        this.#tellRow(listener, row, CHANGED.quote | CHANGED.ticker | CHANGED.book);
      }
    }
  }

  #tellFrame(batch: Batch, now: number, gaps: readonly Gap[]): void {
    const frame = this.#frame;
    frame.now = now;
    frame.changed = this.mirror.changed;
    frame.what = this.mirror.what;
    frame.trades = Object.assign(this.mirror.trades, {
      length: batch.lengths[1],
      dropped: batch.dropped,
    }) as unknown as TradeList;
    frame.gaps = gaps;
    frame.raw = batch.raw;
    this.frames.tell(frame);
  }

  #tellChanges(listener: Listener, batch: Batch): void {
    const { mirror } = this;
    const { channels } = listener.subscription;
    const covers = (row: number): boolean => listener.subscription.covers(row, mirror.instruments.symbol(row));
    if (channels.includes("trade")) {
      for (let index = 0; index < batch.lengths[1]; index++) {
        if (covers(mirror.trades.row[index])) listener.tell(updateOf(mirror, 2, index));
      }
    }
    for (let index = 0; index < mirror.changed.length; index++) {
      const row = mirror.changed[index];
      if (covers(row)) this.#tellRow(listener, row, mirror.what[index]);
    }
    if (!channels.includes("raw")) return;
    for (const record of batch.raw) {
      const symbol = mirror.instruments.symbol(record.row);
      if (covers(record.row)) listener.tell({ channel: "raw", symbol, ...record });
    }
  }

  /** Tells of the state channels of a row. */
  #tellRow({ subscription: { channels }, tell }: Listener, row: number, what: number): void {
    const { mirror } = this;
    for (const [channel, name] of [
      [1, "quote"],
      [3, "ticker"],
    ] as const) {
      const isThere = (what & CHANGED[name]) !== 0 && mirror.columns[channel].sequence[row] > 0;
      if (isThere && channels.includes(name)) tell(updateOf(mirror, channel, row));
    }
    const book = mirror.books.get(row);
    if ((what & CHANGED.book) !== 0 && channels.includes("book") && book !== undefined) {
      tell({ channel: "book", row, symbol: mirror.instruments.symbol(row), book });
    }
  }
}
