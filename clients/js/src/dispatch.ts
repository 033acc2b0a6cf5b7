/** A batch into the mirror, and from there to everyone who listens: events, frames, updates. */

import { Emitter } from "./emitter";
import type { Batch } from "./messages";
import { Mirror } from "./mirror";
import type { OpenSubscription } from "./subscription";
import { CHANGED, type ClientEvents, type Frame, type Gap, type TradeList, type Update } from "./types";
import { updateOf } from "./updates";
import { CHANNELS } from "./wire";

/** Who is told of changes as objects. */
interface Listener {
  readonly subscription: OpenSubscription;
  readonly tell: (update: Update) => void;
}

export class Dispatch {
  readonly mirror = new Mirror();
  readonly events = new Emitter<ClientEvents & { frame: Frame }>();
  readonly #listeners = new Map<number, Listener>();

  /** Tells of the changes that a subscription covers, until it is forgotten. */
  listen(subscription: OpenSubscription, tell: (update: Update) => void): void {
    this.#listeners.set(subscription.id, { subscription, tell });
  }

  forget(id: number): void {
    this.#listeners.delete(id);
  }

  /** Hands a batch to everyone; its arrays are free afterwards. */
  apply(batch: Batch, now: number): void {
    const { mirror, events } = this;
    const { defined, states, lengths, dropped, raw } = batch;
    const { changed, what } = mirror.apply(batch);
    const symbolOf = (row: number): string => mirror.instruments.symbol(row);
    for (const instrument of defined.values()) events.tell("instrument", instrument);
    for (const [row, state] of states) events.tell("state", { row, symbol: symbolOf(row), state });
    const gaps = batch.gaps.map(
      ([row, channel, from, to, reason]) =>
        ({ row, symbol: symbolOf(row), channel: CHANNELS[channel - 1] ?? "raw", from, to, reason }) as Gap,
    );
    for (const gap of gaps) events.tell("gap", gap);
    const trades = { ...mirror.trades, length: lengths[1], dropped } as unknown as TradeList;
    const frame = { now, changed, what, trades, gaps, raw };
    events.tell("frame", frame);
    for (const listener of this.#listeners.values()) this.#tellChanges(listener, frame);
  }

  /** Tells a new listener of what is there because others hold it: of that the server has nothing new to say. */
  greet(id: number, others: readonly OpenSubscription[]): void {
    const listener = this.#listeners.get(id);
    for (const { row } of listener ? this.mirror.instruments : []) {
      const held = others.filter((other) => this.#covers(other, row)).flatMap((other) => other.channels);
      const what = held.reduce((bits, channel) => bits | CHANGED[channel as "quote"], 0);
      this.#tellRow(listener!, row, what);
    }
  }

  #tellChanges(listener: Listener, { changed, what, trades, raw }: Frame): void {
    const { subscription, tell } = listener;
    const { channels } = subscription;
    for (let index = 0; index < trades.length && channels.includes("trade"); index++) {
      if (this.#covers(subscription, trades.row[index])) tell(updateOf(this.mirror, 2, index));
    }
    changed.forEach((row, index) => this.#tellRow(listener, row, what[index]));
    for (const record of channels.includes("raw") ? raw : []) {
      const symbol = this.mirror.instruments.symbol(record.row);
      if (this.#covers(subscription, record.row)) tell({ channel: "raw", symbol, ...record });
    }
  }

  /** Tells of the state channels of a row, if they are wanted. */
  #tellRow({ subscription, tell }: Listener, row: number, what: number): void {
    const { mirror } = this;
    const isDue = (name: "quote" | "ticker" | "book"): unknown =>
      what & CHANGED[name] && subscription.channels.includes(name);
    if (!this.#covers(subscription, row)) return;
    if (isDue("quote") && mirror.columns[1].sequence[row]) tell(updateOf(mirror, 1, row));
    if (isDue("ticker") && mirror.columns[3].sequence[row]) tell(updateOf(mirror, 3, row));
    const book = mirror.books.get(row);
    if (isDue("book") && book) tell({ channel: "book", row, symbol: mirror.instruments.symbol(row), book });
  }

  #covers(subscription: OpenSubscription, row: number): boolean {
    return subscription.covers(row, this.mirror.instruments.symbol(row));
  }
}
