/** The answer of `/v1/operator`, and rates from two answers. Pure. */

import { bytesText } from "./format.ts";

type Numbers = Readonly<Record<string, number>>;

export interface Shard {
  readonly shard: number;
  readonly core: number;
  readonly ring: { readonly backlog_bytes: number; readonly capacity_bytes: number };
  readonly levels: Numbers;
  readonly counters: Numbers;
}

/** A feed or a publisher, and its state in one word; see docs/operations.md. */
export interface Source {
  readonly source: number;
  readonly kind: "feed" | "publisher";
  readonly name: string | null;
  readonly state: "live" | "stale" | "new" | "opening" | "retrying" | "failed" | "ended";
  /** What is wrong, in words. */
  readonly problem: string | null;
  readonly instruments: number;
  readonly records: number;
  readonly records_per_s: number;
  readonly silent_ms: number | null;
}

export interface SlowClient {
  readonly shard: number;
  readonly slot: number;
  readonly address: string | null;
  /** The trusted proxy of its connection. */
  readonly proxy: string | null;
  readonly behind_ms: number;
  readonly nothing_taken_ms: number;
  readonly pending_bytes: number;
  readonly ring_bytes: number;
  readonly blocked: boolean;
  readonly closing: boolean;
  readonly items: number;
  readonly conflate_ms: number | null;
  readonly encoding: string;
}

export interface OperatorAnswer {
  readonly version: string;
  readonly epoch: number;
  readonly uptime_ms: number;
  readonly not_ready: string | null;
  readonly sequencer: { readonly position: number; readonly levels: Numbers; readonly counters: Numbers };
  readonly shards: readonly Shard[];
  readonly sources: readonly Source[];
  readonly slow: readonly SlowClient[];
}

/** A shard with its counters as rates per second, NaN before a second answer. */
export interface ShardRates {
  readonly shard: Shard;
  rate(counter: string): number;
}

/** Rates between one answer and the one before it. */
export class Rates {
  readonly #now: OperatorAnswer;
  readonly #before: OperatorAnswer | null;
  readonly #seconds: number;

  constructor(now: OperatorAnswer, before: OperatorAnswer | null) {
    this.#now = now;
    // Another epoch is another run of the server, whose counters began at 0.
    this.#before = before !== null && before.epoch === now.epoch ? before : null;
    this.#seconds = this.#before === null ? NaN : (now.uptime_ms - this.#before.uptime_ms) / 1000;
  }

  get shards(): ShardRates[] {
    return this.#now.shards.map((shard) => {
      const before = this.#before?.shards.find((other) => other.shard === shard.shard);
      return { shard, rate: (counter) => this.#rate(shard.counters, before?.counters, counter) };
    });
  }

  /** The sum of a shard counter's rates. */
  total(counter: string): number {
    return this.shards.reduce((sum, shard) => sum + shard.rate(counter), 0);
  }

  /** The sum of a level over all shards. */
  level(name: string): number {
    return this.#now.shards.reduce((sum, shard) => sum + (shard.levels[name] ?? 0), 0);
  }

  sequencer(counter: string): number {
    return this.#rate(this.#now.sequencer.counters, this.#before?.sequencer.counters, counter);
  }

  #rate(now: Numbers, before: Numbers | undefined, counter: string): number {
    const [to, from] = [now[counter], before?.[counter]];
    if (to === undefined || from === undefined || !(this.#seconds > 0)) return NaN;
    return Math.max(0, to - from) / this.#seconds;
  }
}

/** The bytes of the ring that a client has still to be sent: beyond the capacity, records are lost to it. */
export function ringText(bytes: number, capacity: number): string {
  return bytes > capacity ? `${bytesText(capacity)} +` : bytesText(bytes);
}

/** `sequencer_books_refused` as `Books refused`. */
export function wordsOf(name: string): string {
  const words = name.replace(/^sequencer_/, "").replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}
