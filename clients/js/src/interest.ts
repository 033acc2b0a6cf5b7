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

import type { Answer } from "./messages";
import { CHANNELS } from "./wire";

/** A place in the server's total order. */
export interface Token {
  readonly epoch: number;
  readonly position: number;
}

/**
 * Where an item stands: not asked for on this connection, asked, answered and its snapshot under way, complete; or the
 * server does not know it, or refuses it.
 */
export type Phase = "new" | "asked" | "filling" | "live" | "unknown" | "refused";

/** A channel of a symbol or pattern. */
export interface Item {
  readonly target: Target;
  readonly channel: number;
  readonly wanted: Set<Wanted>;
  phase: Phase;
  /** The interval that the server was asked for. */
  askedMs: number;
  /** What to go on from, where it was complete once. */
  token: Token | null;
  /** Its snapshot or replay has come to the end on this connection. */
  complete: boolean;
  /** It was complete before a loss, and is not again: its instruments are being synchronised anew. */
  recovering: boolean;
}

/** A symbol or pattern, and what is wanted of it by channel from 1. */
export class Target {
  readonly items: (Item | undefined)[] = [];
  /** What a pattern's symbols begin with; undefined for a name. */
  readonly prefix: string | undefined;

  constructor(readonly name: string) {
    this.prefix = name.endsWith("*") ? name.slice(0, -1) : undefined;
  }

  covers(other: Target): boolean {
    return this.prefix !== undefined && (other.prefix ?? other.name).startsWith(this.prefix);
  }
}

/** A subscription of the application. */
export interface Wanted {
  readonly id: number;
  symbols: readonly string[];
  channels: number;
  ms: number | null;
  /** What was told of it last. */
  told: string;
}

/** A request to be sent. `token` makes it a resume. */
export interface Ask {
  op: "subscribe" | "unsubscribe" | "resume";
  channels: string[];
  symbols: string[];
  conflateMs: number;
  token: Token | null;
  items: Item[];
}

/** Symbols of one request: far below the length that a server takes. */
const SYMBOLS_MAX = 2000;
const PROFILES = [0, 10, 50, 100, 250, 500, 1000];

/** The interval that the server will grant. */
export function offered(ms: number): number {
  return PROFILES.find((profile) => profile >= ms) ?? 1000;
}

export class Interest {
  readonly wanted = new Map<number, Wanted>();
  readonly targets = new Map<string, Target>();
  /** The targets that are patterns, the longest first. */
  patterns: Target[] = [];
  defaultMs = 100;
  /** The least interval while the page is hidden. */
  leastMs = 0;
  symbolsMax = SYMBOLS_MAX;

  /** Begins or changes a subscription. */
  set(id: number, symbols: readonly string[], channels: number, ms: number | null): void {
    const wanted = this.wanted.get(id) ?? { id, symbols: [], channels: 0, ms, told: "" };
    this.wanted.set(id, wanted);
    const keep = new Set(symbols);
    for (const name of wanted.symbols) if (!keep.has(name)) this.#let(wanted, name);
    wanted.symbols = symbols;
    wanted.channels = channels;
    wanted.ms = ms;
    wanted.told = "";
    for (const name of keep) {
      const target = this.#target(name);
      for (let channel = 1; channel <= CHANNELS.length; channel++) {
        if ((channels & (1 << channel)) !== 0) this.#item(target, channel).wanted.add(wanted);
      }
    }
  }

  end(id: number): void {
    const wanted = this.wanted.get(id);
    if (wanted === undefined) return;
    this.wanted.delete(id);
    for (const name of wanted.symbols) this.#let(wanted, name);
  }

  /**
   * Everything has to be asked for again. What was complete goes on from the token, what was not has its own or none.
   */
  lost(token: Token | null): void {
    for (const item of this.items()) {
      if (item.complete) {
        item.token = token;
        item.recovering = true;
      }
      item.complete = false;
      item.phase = "new";
    }
  }

  /** Names that were not there are asked for again. True if there are any. */
  retryUnknown(): boolean {
    let found = false;
    for (const item of this.items()) {
      if (item.phase !== "unknown") continue;
      item.phase = "new";
      found = true;
    }
    return found;
  }

  /** Tokens of another epoch are worth nothing. */
  forgetTokens(epoch: number): void {
    for (const item of this.items()) if (item.token?.epoch !== epoch) item.token = null;
  }

  /** What was answered is complete: its snapshot or replay has come to its end. */
  complete(): void {
    for (const item of this.items()) {
      if (item.phase !== "filling") continue;
      item.phase = "live";
      item.complete = true;
      item.recovering = false;
      item.token = null;
    }
  }

  /** Forgets what nobody wants while there is nobody to tell it. */
  prune(dropped: (item: Item) => void): void {
    for (const item of this.items()) if (item.wanted.size === 0) dropped(item);
    this.#drops(null);
  }

  /** What is to be asked now, in order; it counts as asked. */
  plan(current: Token | null): Ask[] {
    const asks = this.#drops(current);
    const due = new Map<Target, Item[]>();
    for (const item of this.items()) {
      const ms = this.#interval(item);
      const isChange = item.phase !== "new" && item.phase !== "unknown" && item.phase !== "refused";
      if (item.phase !== "new" && !(isChange && item.askedMs !== ms)) continue;
      item.askedMs = ms;
      const list = due.get(item.target);
      if (list === undefined) due.set(item.target, [item]);
      else list.push(item);
    }
    return [...asks, ...grouped(due, this.symbolsMax)];
  }

  /** What is known of a subscription; undefined until all of it has been answered. */
  result(wanted: Wanted): Answer | undefined {
    const unknown: string[] = [];
    const denied: string[] = [];
    let conflateMs = 0;
    let done = true;
    for (const name of wanted.symbols) {
      for (const item of this.targets.get(name)?.items ?? []) {
        if (item === undefined || !item.wanted.has(wanted)) continue;
        if (item.phase === "new" || item.phase === "asked") return undefined;
        if (item.phase === "unknown" && unknown.at(-1) !== name) unknown.push(name);
        else if (item.phase === "refused" && denied.at(-1) !== name) denied.push(name);
        if (item.phase === "filling") done = false;
        conflateMs = Math.max(conflateMs, offered(item.askedMs));
      }
    }
    return { result: { unknown, denied, conflateMs }, done };
  }

  *items(): Generator<Item> {
    for (const target of this.targets.values()) {
      for (const item of target.items) if (item !== undefined) yield item;
    }
  }

  /** Calls back with every item that covers a symbol. */
  eachCovering(symbol: string, each: (item: Item) => void): void {
    const some = (target: Target): void => target.items.forEach((item) => item !== undefined && each(item));
    const exact = this.targets.get(symbol);
    if (exact !== undefined) some(exact);
    for (const pattern of this.patterns) if (symbol.startsWith(pattern.prefix!)) some(pattern);
  }

  /** Gives up what nobody wants, at the server too. */
  #drops(current: Token | null): Ask[] {
    const gone = new Map<Target, Item[]>();
    for (const item of this.items()) {
      if (item.wanted.size > 0) continue;
      item.target.items[item.channel] = undefined;
      if (item.phase === "asked" || item.phase === "filling" || item.phase === "live") {
        const list = gone.get(item.target);
        if (list === undefined) gone.set(item.target, [item]);
        else list.push(item);
      }
    }
    for (const target of this.targets.values()) {
      if (target.items.every((item) => item === undefined)) this.targets.delete(target.name);
    }
    this.patterns = this.patterns.filter((pattern) => this.targets.has(pattern.name));
    for (const [target, items] of gone) if (target.prefix !== undefined) this.#askAgain(target, items, current);
    for (const items of gone.values()) for (const item of items) [item.askedMs, item.token] = [0, null];
    return grouped(gone, this.symbolsMax, "unsubscribe");
  }

  /** To unsubscribe a pattern takes away all that it covers: what of that is still wanted goes on from the token. */
  #askAgain(pattern: Target, gone: readonly Item[], current: Token | null): void {
    for (const target of this.targets.values()) {
      if (!pattern.covers(target)) continue;
      for (const { channel } of gone) {
        const item = target.items[channel];
        if (item === undefined || item.phase === "unknown" || item.phase === "refused") continue;
        if (item.complete) item.token = current;
        item.complete = false;
        item.phase = "new";
      }
    }
  }

  /** The shortest interval that anybody wants of what an item covers: a name's decides over its patterns'. */
  #interval(item: Item): number {
    let least = this.#own(item);
    for (const pattern of this.patterns) {
      const wider = pattern.items[item.channel];
      if (wider !== undefined && wider !== item && pattern.covers(item.target))
        least = Math.min(least, this.#own(wider));
    }
    return Math.max(least, this.leastMs);
  }

  #own(item: Item): number {
    let least = Infinity;
    for (const wanted of item.wanted) least = Math.min(least, wanted.ms ?? this.defaultMs);
    return least;
  }

  #target(name: string): Target {
    let target = this.targets.get(name);
    if (target !== undefined) return target;
    target = new Target(name);
    this.targets.set(name, target);
    if (target.prefix !== undefined) {
      this.patterns.push(target);
      this.patterns.sort((one, other) => other.name.length - one.name.length);
    }
    return target;
  }

  #item(target: Target, channel: number): Item {
    return (target.items[channel] ??= {
      ...{ target, channel, wanted: new Set<Wanted>(), phase: "new", askedMs: 0, token: null },
      ...{ complete: false, recovering: false },
    });
  }

  #let(wanted: Wanted, name: string): void {
    for (const item of this.targets.get(name)?.items ?? []) item?.wanted.delete(wanted);
  }
}

/**
 * Requests for these items, as few as will do: symbols that want the same channels at the same interval from the same
 * token travel together. Names go before patterns and narrow patterns before wide ones: a value that waited for the
 * more specific would be taken for had otherwise.
 */
function grouped(due: Map<Target, Item[]>, symbolsMax: number, op?: "unsubscribe"): Ask[] {
  const targets = [...due.keys()].sort((one, other) => rank(one) - rank(other));
  const groups = new Map<string, Ask>();
  for (const target of targets) {
    const bySetting = new Map<string, Item[]>();
    for (const item of due.get(target)!) {
      const key = `${rank(target)} ${item.askedMs} ${item.token?.epoch} ${item.token?.position}`;
      bySetting.set(key, [...(bySetting.get(key) ?? []), item]);
    }
    for (const [setting, items] of bySetting) {
      const channels = items.map((item) => CHANNELS[item.channel - 1]);
      const key = `${setting} ${channels}`;
      let ask = groups.get(key);
      if (ask === undefined || ask.symbols.length >= symbolsMax) {
        if (ask !== undefined) groups.set(`${key} ${groups.size}`, ask);
        const [{ token, askedMs: conflateMs }] = items;
        ask = {
          op: op ?? (token === null ? "subscribe" : "resume"),
          channels,
          symbols: [],
          conflateMs,
          token,
          items: [],
        };
        groups.set(key, ask);
      }
      ask.symbols.push(target.name);
      ask.items.push(...items);
      if (op === undefined) for (const item of items) item.phase = "asked";
    }
  }
  return [...groups.values()];
}

function rank(target: Target): number {
  return target.prefix === undefined ? -1e9 : -target.name.length;
}
