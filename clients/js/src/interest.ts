/**
 * What the application wants, and what the server has been asked for.
 *
 * What always holds: a symbol and channel is asked for once, at the shortest interval that anybody wants of it, a
 * pattern that covers it included. A target that is gone from the server's side by another's unsubscription is asked
 * for again.
 *
 * It knows nothing of sockets; {@link Interest.plan} says what to ask next. Cost: in proportion to what is wanted, once
 * for each microtask in which it has changed.
 */

import type { Answer, Wanted } from "./messages";
import type { Channel, Connection } from "./types";

/** A place in the server's total order. */
export interface Token {
  readonly epoch: number;
  readonly position: number;
}

/**
 * Where an item stands: not asked for on this connection; the server does not know it, or refuses it; asked, answered
 * and its snapshot under way, complete. From `Asked` on the server holds it for us.
 */
export const enum Phase {
  New,
  Unknown,
  Refused,
  Asked,
  Filling,
  Live,
}

/** A channel of a symbol or pattern. */
export interface Item {
  readonly target: Target;
  readonly channel: Channel;
  readonly users: Set<Wanted>;
  stage: Phase;
  /** The interval that the server was asked for. */
  askedMs: number;
  /** What to go on from, where it was complete once. */
  token: Token | null;
  /** Its snapshot or replay has come to the end on this connection. */
  whole: boolean;
  /** It was complete before a loss, and is not again: its instruments are being synchronised anew. */
  recovering: boolean;
}

/** A symbol or pattern, and what is wanted of it by channel. */
export interface Target {
  readonly name: string;
  /** The name, or what a pattern's symbols begin with. */
  readonly stem: string;
  /** The order in which requests go: names first, then patterns, the narrow before the wide. */
  readonly rank: number;
  readonly parts: Map<Channel, Item>;
}

/** A request to be sent. `token` makes it a resume. */
export interface Ask {
  op: string;
  /** That of its symbols. */
  rank: number;
  channels: string[];
  symbols: string[];
  askedMs: number;
  token: Token | null;
  parts: Item[];
}

const PROFILES = [0, 10, 50, 100, 250, 500];
const NAME_RANK = -1000;

export class Interest {
  readonly wanted = new Map<number, Wanted>();
  /** The interval of those that have none of their own. */
  defaultMs = 100;
  /** The least interval while the page is hidden. */
  leastMs = 0;
  /** Symbols of one request: far below the length that a server takes. */
  symbolsMax = 2000;
  readonly #targets = new Map<string, Target>();
  /** The targets that are patterns, the narrow first; as new as the last {@link plan} or {@link drop}. */
  #patterns: Target[] = [];

  /** Begins or changes a subscription. */
  set(wanted: Wanted): void {
    this.end(wanted.id);
    this.wanted.set(wanted.id, wanted);
    for (const name of wanted.symbols) {
      const target = this.#target(name);
      for (const channel of wanted.channels) this.#item(target, channel).users.add(wanted);
    }
  }

  end(id: number): void {
    const wanted = this.wanted.get(id);
    if (wanted) for (const item of this.#items(wanted.symbols)) item.users.delete(wanted);
    this.wanted.delete(id);
  }

  /**
   * Everything has to be asked for again. What was complete goes on from the token, what was not has its own or none.
   */
  lost(token: Token | null): void {
    for (const item of this.#items()) {
      if (item.whole) item.recovering = true;
      again(item, token);
    }
  }

  /** Names that were not there are asked for again. True if there are any. */
  retryUnknown(): boolean {
    const unknown = [...this.#items()].filter((item) => item.stage === Phase.Unknown);
    for (const item of unknown) item.stage = Phase.New;
    return unknown.length > 0;
  }

  /** How what was complete goes on, as far as it is known: tokens of another epoch are worth nothing. */
  resumed(epoch: number): Connection["resumed"] {
    let how = "fresh" as Connection["resumed"];
    for (const item of this.#items()) {
      if (item.token?.epoch !== epoch) item.token = null;
      if (item.recovering) how = item.token && how !== "snapshot" ? "pending" : "snapshot";
    }
    return how;
  }

  /** What was answered is complete: its snapshot or replay has come to its end. */
  complete(): void {
    for (const item of this.#items()) {
      if (item.stage !== Phase.Filling) continue;
      item.stage = Phase.Live;
      item.whole = true;
      item.recovering = false;
      item.token = null;
    }
  }

  /** What is to be asked now, in order; it counts as asked. */
  plan(current: Token | null): Ask[] {
    const drops = this.drop(current);
    const due = [...this.#items()].filter((item) => {
      const ms = this.#interval(item);
      const isDue = item.stage === Phase.New || (item.stage >= Phase.Asked && item.askedMs !== ms);
      if (isDue) item.askedMs = ms;
      return isDue;
    });
    const asks = [...drops, ...this.#grouped(due)];
    // Of what the server holds only the interval changes: no other snapshot comes, and none is waited for.
    for (const item of due) if (item.stage < Phase.Asked) item.stage = Phase.Asked;
    return asks;
  }

  /** Forgets what nobody wants; returns what the server is to be told of it. */
  drop(current: Token | null): Ask[] {
    const gone: Item[] = [];
    for (const item of this.#items()) {
      const { target, channel, stage, users } = item;
      if (users.size > 0) continue;
      target.parts.delete(channel);
      if (target.parts.size === 0) this.#targets.delete(target.name);
      if (stage >= Phase.Asked) gone.push({ ...item, askedMs: 0 });
    }
    this.#patterns = [...this.#targets.values()].filter(isPattern).sort(byRank);
    for (const { target, channel } of gone) if (isPattern(target)) this.#askAgain(target, channel, current);
    return this.#grouped(gone, "unsubscribe");
  }

  /** What is known of a subscription; undefined until all of it has been answered. */
  result(wanted: Wanted): Answer | undefined {
    const items = [...this.#items(wanted.symbols)].filter((item) => item.users.has(wanted));
    const named = (stage: Phase): string[] => [
      ...new Set(items.filter((item) => item.stage === stage).map((item) => item.target.name)),
    ];
    if (items.some(({ stage }) => stage === Phase.New || stage === Phase.Asked)) return undefined;
    const longest = Math.max(0, ...items.map((item) => item.askedMs));
    return {
      nth: wanted.nth,
      result: {
        unknown: named(Phase.Unknown),
        denied: named(Phase.Refused),
        conflateMs: PROFILES.find((profile) => profile >= longest) ?? 1000,
      },
      done: named(Phase.Filling).length === 0,
    };
  }

  /** Every item that covers a symbol, its own before those of patterns. */
  *covering(symbol: string): Generator<Item> {
    yield* this.#items([symbol]);
    for (const pattern of this.#patterns) if (symbol.startsWith(pattern.stem)) yield* pattern.parts.values();
  }

  /** The items of these names and patterns, of all where none are given. */
  *#items(names: Iterable<string> = this.#targets.keys()): Generator<Item> {
    for (const name of names) yield* this.#targets.get(name)?.parts.values() ?? [];
  }

  /** To unsubscribe a pattern takes away all that it covers: what of that is still wanted goes on from the token. */
  #askAgain(pattern: Target, channel: Channel, current: Token | null): void {
    for (const target of this.#targets.values()) {
      const item = target.parts.get(channel);
      if (item && item.stage >= Phase.Asked && target.stem.startsWith(pattern.stem)) again(item, current);
    }
  }

  /** The shortest interval that anybody wants of what an item covers: a name's decides over its patterns'. */
  #interval({ target, channel, users }: Item): number {
    const all = [...users];
    for (const pattern of this.#patterns) {
      if (target.stem.startsWith(pattern.stem)) all.push(...(pattern.parts.get(channel)?.users ?? []));
    }
    return Math.max(this.leastMs, Math.min(...all.map((wanted) => wanted.ms ?? this.defaultMs)));
  }

  #target(name: string): Target {
    let target = this.#targets.get(name);
    if (!target) {
      const stem = name.replace(/\*$/, "");
      const rank = stem === name ? NAME_RANK : -name.length;
      this.#targets.set(name, (target = { name, stem, rank, parts: new Map() }));
    }
    return target;
  }

  #item(target: Target, channel: Channel): Item {
    let item = target.parts.get(channel);
    if (!item) {
      item = {
        ...{ target, channel, users: new Set(), stage: Phase.New, askedMs: 0, token: null },
        ...{ whole: false, recovering: false },
      };
      target.parts.set(channel, item);
    }
    return item;
  }

  /**
   * Requests for these items, as few as will do: symbols that want the same channels at the same interval from the
   * same token travel together. Names go before patterns and narrow patterns before wide ones: a value that waited for
   * the more specific would be taken for had otherwise.
   */
  #grouped(due: readonly Item[], op?: string): Ask[] {
    const asks: Ask[] = [];
    const open = new Map<string, Ask>();
    // What travels together of one symbol, and then the symbols of which the same does.
    const sets = new Map<string, Item[]>();
    for (const item of due) {
      const key = JSON.stringify([item.target.name, item.askedMs, tokenOf(item)]);
      sets.set(key, [...(sets.get(key) ?? []), item]);
    }
    for (const parts of sets.values()) {
      const [{ target, askedMs }] = parts;
      const token = tokenOf(parts[0]);
      const { rank } = target;
      const channels = parts.map((item) => item.channel);
      const key = JSON.stringify([rank, askedMs, token, channels]);
      let ask = open.get(key);
      if (!ask || ask.symbols.length >= this.symbolsMax) {
        ask = { op: op ?? (token ? "resume" : "subscribe"), rank, channels, symbols: [], askedMs, token, parts: [] };
        open.set(key, ask);
        asks.push(ask);
      }
      ask.symbols.push(target.name);
      ask.parts.push(...parts);
    }
    return asks.sort(byRank);
  }
}

/** It is to be asked for again, from the token if it was complete. */
function again(item: Item, token: Token | null): void {
  if (item.whole) item.token = token;
  item.whole = false;
  item.stage = Phase.New;
}

/** Where a request goes on from: what the server holds already is not asked for from anywhere. */
function tokenOf({ stage, token }: Item): Token | null {
  return stage < Phase.Asked ? token : null;
}

/** Names go first, then patterns, the narrow before the wide. */
function byRank(one: { rank: number }, other: { rank: number }): number {
  return one.rank - other.rank;
}

function isPattern(target: Target): boolean {
  return target.rank > NAME_RANK;
}
