/**
 * The subscriptions of the application, and what the server has been asked for.
 *
 * What always holds: each channel of a symbol is requested once, at the shortest interval among the subscriptions that
 * cover it, patterns included. An item that the server drops because a pattern over it was unsubscribed is requested
 * again.
 *
 * It does no I/O: {@link Interest.plan} returns the next requests. Cost: proportional to the number of items, once per
 * microtask in which a subscription has changed.
 */

import type { Answer, SubscriptionSpec } from "./messages";
import type { Channel, Connection } from "./types";

/** A position in the server's total order. */
export interface Token {
  readonly epoch: number;
  readonly position: number;
}

/** The stage of an item on the present connection. From `Requested` on the server holds it. */
export const enum Stage {
  /** Not requested yet. */
  New,
  /** The server refused the request. */
  Refused,
  /** Answered: the client has no right to it. */
  Denied,
  /** Requested, not answered. */
  Requested,
  /** Answered: there is no such instrument, and its records follow once it is defined. */
  Unknown,
  /** Answered; its snapshot or replay is under way. */
  Syncing,
  /** Its snapshot or replay is complete. */
  Live,
}

/** A channel of a symbol or pattern. */
export interface Item {
  readonly target: Target;
  readonly channel: Channel;
  readonly subscribers: Set<SubscriptionSpec>;
  stage: Stage;
  /** The interval of the last request. */
  requestedMs: number;
  /** The token to resume from; null where a snapshot is needed. */
  token: Token | null;
  /** Its snapshot or replay was completed on the present connection. */
  synced: boolean;
  /** The client gets fewer symbols of the pattern than it covers, or has a right to delayed data of it. */
  partial: boolean;
  delayed: boolean;
  /** It was synced before the connection was lost, and is not yet synced again. */
  recovering: boolean;
  /** Levels of each side of its book by the last answer; 0 for all. */
  depth: number;
}

/** A symbol or pattern, with its items by channel. */
export interface Target {
  readonly name: string;
  /** The whole name, or of a pattern the part before the `*`. */
  readonly prefix: string;
  /** The order of requests: names first, then patterns, longer ones before shorter ones. */
  readonly rank: number;
  readonly items: Map<Channel, Item>;
}

/** A request to the server. With a token it is a resume. */
export interface ServerRequest {
  op: string;
  /** The rank of its symbols. */
  rank: number;
  channels: string[];
  symbols: string[];
  requestedMs: number;
  token: Token | null;
  items: Item[];
  /** Asks again what the client's rights allow of items that were answered before. */
  again?: boolean;
}

/** The conflation intervals of the server that are shorter than a second, in ms. */
const INTERVALS_MS = [0, 10, 50, 100, 250, 500];
const NAME_RANK = -1000;

export class Interest {
  readonly subscriptions = new Map<number, SubscriptionSpec>();
  /** The interval of subscriptions without one of their own. */
  defaultMs = 100;
  /** The shortest interval to request; above 0 while the page is hidden. */
  leastMs = 0;
  /** Symbols in one request, to stay far below the server's limit of a request's length. */
  symbolsMax = 2000;
  readonly #targets = new Map<string, Target>();
  /** The targets that are patterns, longer ones first; renewed by {@link plan} and {@link dropUnused}. */
  #patterns: Target[] = [];

  /** Adds a subscription, or replaces the one with the same id. */
  set(spec: SubscriptionSpec): void {
    this.end(spec.id);
    this.subscriptions.set(spec.id, spec);
    for (const name of spec.symbols) {
      const target = this.#target(name);
      for (const channel of spec.channels) this.#item(target, channel).subscribers.add(spec);
    }
  }

  end(id: number): void {
    const spec = this.subscriptions.get(id);
    if (spec) for (const item of this.#items(spec.symbols)) item.subscribers.delete(spec);
    this.subscriptions.delete(id);
  }

  /** The connection is lost: everything is to be requested again. Synced items resume from `token`. */
  connectionLost(token: Token | null): void {
    for (const item of this.#items()) {
      if (item.synced) item.recovering = true;
      reset(item, token);
    }
  }

  /**
   * An instrument was defined: items of its name that were unknown are live. Or it was released: they are unknown
   * again. True if there are such items.
   */
  known(symbol: string, isDefined: boolean): boolean {
    const stage = isDefined ? Stage.Unknown : Stage.Live;
    const items = [...this.#items([symbol])].filter((item) => item.stage === stage);
    for (const item of items) {
      item.stage = isDefined ? Stage.Live : Stage.Unknown;
      item.synced = isDefined;
    }
    return items.length > 0;
  }

  /** The client has other rights: what it did not get, or has lost, wholly or in part. */
  rightsChanged(dropped: readonly string[]): Item[] {
    const lost = new Set(dropped);
    const isRestricted = (item: Item): boolean => item.partial || lost.has(item.target.name);
    return [...this.#items()].filter(
      (item) => item.stage === Stage.Denied || (item.stage > Stage.Requested && isRestricted(item)),
    );
  }

  /** Requests that ask for each channel by itself: the answer to several does not say which of them is denied. */
  again(items: readonly Item[]): ServerRequest[] {
    const groups = new Map<string, Item[]>();
    for (const item of items) {
      const key = JSON.stringify([item.channel, item.requestedMs]);
      groups.set(key, [...(groups.get(key) ?? []), item]);
    }
    const held = [...groups.values()].flatMap((group) => this.#grouped(group, "subscribe"));
    return held.map((request) => ({ ...request, again: true, token: null }));
  }

  /** How synced items continue on a new connection. Tokens of another epoch are discarded. */
  resumed(epoch: number): Connection["resumed"] {
    let how = "fresh" as Connection["resumed"];
    for (const item of this.#items()) {
      if (item.token?.epoch !== epoch) item.token = null;
      if (item.recovering) how = item.token && how !== "snapshot" ? "pending" : "snapshot";
    }
    return how;
  }

  /** The snapshots and replays of all answered items are complete. */
  markSynced(): void {
    for (const item of this.#items()) {
      if (item.stage !== Stage.Syncing) continue;
      item.stage = Stage.Live;
      item.synced = true;
      item.recovering = false;
      item.token = null;
    }
  }

  /** The requests that are due, in order; their items count as requested. */
  plan(token: Token | null): ServerRequest[] {
    const unsubscribes = this.dropUnused(token);
    const due = [...this.#items()].filter((item) => {
      const ms = this.#interval(item);
      const isDue = item.stage === Stage.New || (item.stage >= Stage.Requested && item.requestedMs !== ms);
      if (isDue) item.requestedMs = ms;
      return isDue;
    });
    const requests = [...unsubscribes, ...this.#grouped(due)];
    // An item that the server holds only changes its interval: it gets no further snapshot, so its stage stays.
    for (const item of due) if (item.stage < Stage.Requested) item.stage = Stage.Requested;
    return requests;
  }

  /**
   * Notes the depth of books in an answer. A replay does not change the depth of a book: items that continue with another
   * one begin anew. Returns the requests that end these.
   */
  depthAnswered(items: readonly Item[], depth: number, continues: boolean): ServerRequest[] {
    const books = items.filter(({ channel }) => channel === "book");
    const changed = continues ? books.filter((item) => item.depth !== depth) : [];
    const ends = this.#grouped(
      changed.map((item) => ({ ...item, requestedMs: 0 })),
      "unsubscribe",
    );
    for (const item of books) item.depth = depth;
    for (const item of changed) [item.stage, item.token] = [Stage.New, null];
    return ends;
  }

  /** Removes items without subscribers; returns the unsubscribe requests for those that the server holds. */
  dropUnused(token: Token | null): ServerRequest[] {
    const dropped: Item[] = [];
    for (const item of this.#items()) {
      const { target, channel, stage, subscribers } = item;
      if (subscribers.size > 0) continue;
      target.items.delete(channel);
      if (target.items.size === 0) this.#targets.delete(target.name);
      if (stage >= Stage.Requested) dropped.push({ ...item, requestedMs: 0 });
    }
    this.#patterns = [...this.#targets.values()].filter(isPattern).sort(byRank);
    for (const { target, channel } of dropped) if (isPattern(target)) this.#resetCovered(target, channel, token);
    return this.#grouped(dropped, "unsubscribe");
  }

  /** The answer to a subscription; undefined until the server has answered all of its items. */
  resultOf(spec: SubscriptionSpec): Answer | undefined {
    const items = [...this.#items(spec.symbols)].filter((item) => item.subscribers.has(spec));
    const named = (stage: Stage): string[] => [
      ...new Set(items.filter((item) => item.stage === stage).map((item) => item.target.name)),
    ];
    const where = (is: (of: Item[]) => boolean): string[] =>
      spec.symbols.filter((name) => is([...this.#items([name])].filter((item) => item.subscribers.has(spec))));
    if (items.some(({ stage }) => stage === Stage.New || stage === Stage.Requested)) return undefined;
    const longest = Math.max(0, ...items.map((item) => item.requestedMs));
    return {
      revision: spec.revision,
      result: {
        unknown: named(Stage.Unknown),
        denied: [...new Set([...named(Stage.Refused), ...where((of) => of.every(isDenied))])],
        limited: where((of) => !of.every(isDenied) && of.some((item) => item.partial || isDenied(item))),
        delayed: where((of) => of.some((item) => item.delayed)),
        conflateMs: INTERVALS_MS.find((ms) => ms >= longest) ?? 1000,
      },
      done: named(Stage.Syncing).length === 0,
    };
  }

  /** Whether the client gets a channel of a name or pattern. */
  isGranted(name: string): boolean {
    return [...this.#items([name])].some((item) => item.stage !== Stage.Denied);
  }

  /** Every item that covers a symbol: items of its name, then items of patterns. */
  *covering(symbol: string): Generator<Item> {
    yield* this.#items([symbol]);
    for (const pattern of this.#patterns) if (symbol.startsWith(pattern.prefix)) yield* pattern.items.values();
  }

  /** The items of these names and patterns; without an argument, all items. */
  *#items(names: Iterable<string> = this.#targets.keys()): Generator<Item> {
    for (const name of names) yield* this.#targets.get(name)?.items.values() ?? [];
  }

  /** Unsubscribing a pattern ends all that it covers: covered items with subscribers resume from the token. */
  #resetCovered(pattern: Target, channel: Channel, token: Token | null): void {
    for (const target of this.#targets.values()) {
      const item = target.items.get(channel);
      if (item && item.stage >= Stage.Requested && target.prefix.startsWith(pattern.prefix)) reset(item, token);
    }
  }

  /** The shortest interval among an item's subscriptions and those of patterns that cover it. */
  #interval({ target, channel, subscribers }: Item): number {
    const all = [...subscribers];
    for (const pattern of this.#patterns) {
      if (target.prefix.startsWith(pattern.prefix)) all.push(...(pattern.items.get(channel)?.subscribers ?? []));
    }
    return Math.max(this.leastMs, Math.min(...all.map((spec) => spec.ms ?? this.defaultMs)));
  }

  #target(name: string): Target {
    let target = this.#targets.get(name);
    if (!target) {
      const prefix = name.replace(/\*$/, "");
      const rank = prefix === name ? NAME_RANK : -name.length;
      this.#targets.set(name, (target = { name, prefix, rank, items: new Map() }));
    }
    return target;
  }

  #item(target: Target, channel: Channel): Item {
    let item = target.items.get(channel);
    if (!item) {
      item = {
        ...{ target, channel, subscribers: new Set(), stage: Stage.New, requestedMs: 0, token: null },
        ...{ synced: false, recovering: false, partial: false, delayed: false, depth: 0 },
      };
      target.items.set(channel, item);
    }
    return item;
  }

  /**
   * The fewest requests for these items: symbols with the same channels, interval and token share one. Names go before
   * patterns and longer patterns before shorter ones: the server would otherwise count a value that still waits for
   * the more specific interval as sent.
   */
  #grouped(due: readonly Item[], op?: string): ServerRequest[] {
    const requests: ServerRequest[] = [];
    const open = new Map<string, ServerRequest>();
    // First the channels of one symbol that go together, then the symbols whose channels are the same.
    const sets = new Map<string, Item[]>();
    for (const item of due) {
      const key = JSON.stringify([item.target.name, item.requestedMs, tokenOf(item)]);
      sets.set(key, [...(sets.get(key) ?? []), item]);
    }
    for (const items of sets.values()) {
      const [{ target, requestedMs }] = items;
      const token = tokenOf(items[0]);
      const { rank } = target;
      const channels = items.map((item) => item.channel);
      const key = JSON.stringify([rank, requestedMs, token, channels]);
      let request = open.get(key);
      if (!request || request.symbols.length >= this.symbolsMax) {
        const type = op ?? (token ? "resume" : "subscribe");
        request = { op: type, rank, channels, symbols: [], requestedMs, token, items: [] };
        open.set(key, request);
        requests.push(request);
      }
      request.symbols.push(target.name);
      request.items.push(...items);
    }
    return requests.sort(byRank);
  }
}

/** Makes an item due for another request: from the token if it was synced. */
function reset(item: Item, token: Token | null): void {
  if (item.synced) item.token = token;
  item.synced = false;
  item.stage = Stage.New;
}

/** The token of an item's request; null for an item that the server holds. */
function tokenOf({ stage, token }: Item): Token | null {
  return stage < Stage.Requested ? token : null;
}

/** Sorts names first, then patterns, longer ones before shorter ones. */
function byRank(one: { rank: number }, other: { rank: number }): number {
  return one.rank - other.rank;
}

function isDenied({ stage }: Item): boolean {
  return stage === Stage.Denied;
}

function isPattern(target: Target): boolean {
  return target.rank > NAME_RANK;
}
