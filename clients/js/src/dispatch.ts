/** Applies batches to the mirror, and delivers their changes to listeners: events, frames, updates. */

import { Emitter } from "./emitter";
import type { Batch } from "./messages";
import { Mirror } from "./mirror";
import type { OpenSubscription } from "./subscription";
import { CHANGED, type ClientEvents, type Frame, type Gap, type TradeList, type Update } from "./types";
import { updateOf } from "./updates";
import { CHANNELS } from "./wire";

/** A callback for updates, and the subscription whose updates it gets. */
interface Listener {
  readonly subscription: OpenSubscription;
  readonly deliver: (update: Update) => void;
}

export class Dispatch {
  readonly mirror = new Mirror();
  readonly events = new Emitter<ClientEvents & { frame: Frame }>();
  readonly #listeners = new Map<number, Listener>();

  /** Delivers the changes that a subscription covers, until {@link forget}. */
  listen(subscription: OpenSubscription, deliver: (update: Update) => void): void {
    this.#listeners.set(subscription.id, { subscription, deliver });
  }

  forget(id: number): void {
    this.#listeners.delete(id);
  }

  /** Delivers a batch to all listeners; its arrays are free afterwards. */
  apply(batch: Batch, now: number): void {
    const { mirror, events } = this;
    const { defined, states, lengths, dropped, raw, gone } = batch;
    const { changed, what } = mirror.apply(batch);
    const symbolOf = (row: number): string => mirror.instruments.symbol(row);
    for (const instrument of defined.values()) events.emit("instrument", instrument);
    for (const [row, state] of states) events.emit("state", { row, symbol: symbolOf(row), state });
    const gaps = batch.gaps.map(
      ([row, channel, from, to, reason]) =>
        ({ row, symbol: symbolOf(row), channel: CHANNELS[channel - 1] ?? "raw", from, to, reason }) as Gap,
    );
    for (const gap of gaps) events.emit("gap", gap);
    const trades = { ...mirror.trades, length: lengths[1], dropped } as unknown as TradeList;
    const frame = { now, changed, what, trades, gaps, raw };
    events.emit("frame", frame);
    for (const listener of this.#listeners.values()) this.#deliverChanges(listener, frame);
    for (const row of gone) {
      const symbol = symbolOf(row);
      mirror.release(row);
      events.emit("released", { row, symbol });
    }
  }

  /** Delivers to a new listener the values that other subscriptions hold: the server does not send them again. */
  deliverCurrent(id: number, others: readonly OpenSubscription[]): void {
    const listener = this.#listeners.get(id);
    for (const { row } of listener ? this.mirror.instruments : []) {
      const held = others.filter((other) => this.#covers(other, row)).flatMap((other) => other.channels);
      const what = held.reduce((bits, channel) => bits | CHANGED[channel as "quote"], 0);
      this.#deliverRow(listener!, row, what);
    }
  }

  #deliverChanges(listener: Listener, { changed, what, trades, raw }: Frame): void {
    const { subscription, deliver } = listener;
    const { channels } = subscription;
    for (let index = 0; index < trades.length && channels.includes("trade"); index++) {
      if (this.#covers(subscription, trades.row[index])) deliver(updateOf(this.mirror, 2, index));
    }
    changed.forEach((row, index) => this.#deliverRow(listener, row, what[index]));
    for (const record of channels.includes("raw") ? raw : []) {
      const symbol = this.mirror.instruments.symbol(record.row);
      if (this.#covers(subscription, record.row)) deliver({ channel: "raw", symbol, ...record });
    }
  }

  /** Delivers the state channels of a row that have changed and are subscribed. */
  #deliverRow({ subscription, deliver }: Listener, row: number, what: number): void {
    const { mirror } = this;
    const isDue = (name: "quote" | "ticker" | "book"): unknown =>
      what & CHANGED[name] && subscription.channels.includes(name);
    if (!this.#covers(subscription, row)) return;
    if (isDue("quote") && mirror.columns[1].sequence[row]) deliver(updateOf(mirror, 1, row));
    if (isDue("ticker") && mirror.columns[3].sequence[row]) deliver(updateOf(mirror, 3, row));
    const book = mirror.books.get(row);
    if (isDue("book") && book) deliver({ channel: "book", row, symbol: mirror.instruments.symbol(row), book });
  }

  #covers(subscription: OpenSubscription, row: number): boolean {
    return subscription.covers(row, this.mirror.instruments.symbol(row));
  }
}
