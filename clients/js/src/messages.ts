/**
 * What the page's side and the stream's side say to each other: by postMessage, or directly where there is no worker.
 */

import type { Book, Channel, ClientError, Connection, Instrument, InstrumentState } from "./types";
import type { RawRecord, SubscriptionResult } from "./types";

/** Settings that the stream's side needs. */
export interface Settings {
  readonly conflateMs: number;
  readonly bookDepth: number;
  readonly tradeBacklog: number;
  readonly firstMs: number;
  readonly mostMs: number;
  readonly settledMs: number;
}

/** A subscription of the application. */
export interface Wanted {
  readonly id: number;
  /** Counts its changes: an answer is to one of them. */
  readonly nth: number;
  readonly symbols: readonly string[];
  readonly channels: readonly Channel[];
  /** Its own conflation interval; null for the client's. */
  readonly ms: number | null;
}

/** From the page. `sub` begins and changes a subscription, `end` ends it; `ms` is the client's
 * interval, and the least one while its page is hidden. */
export type Command =
  | { t: "open"; settings: Settings }
  | { t: "url"; url: string; error?: string }
  | ({ t: "sub" } & Wanted)
  | { t: "end"; id: number }
  | { t: "ms"; ms: number; leastMs: number }
  | { t: "online" }
  | { t: "pull"; spent: Batch | null }
  | { t: "close" };

/** Counters since the start, and what the pings found. */
export interface Counters {
  messages: number;
  updates: number;
  conflated: number;
  bytes: number;
  gaps: number;
  reconnects: number;
  rttMs: number;
  clockOffsetMs: number;
}

/** From the stream's side. `dirty` is said once, when something has come since the last batch. */
export type Report =
  | { t: "ready" }
  | { t: "url" }
  | { t: "dirty" }
  | { t: "batch"; batch: Batch }
  | { t: "connection"; connection: Connection }
  | { t: "error"; error: ClientError }
  | { t: "counters"; counters: Counters; atMs: number };

/** What is known of a subscription; `done` once its snapshot is here. */
export interface Answer {
  /** That of what was wanted. */
  readonly nth: number;
  readonly result: SubscriptionResult;
  readonly done: boolean;
}

/** All that has changed since the last batch. Its buffers go back to their owner with the next pull. */
export interface Batch {
  /** Columns of quotes, trades and tickers, by channel from 1, and how many entries each has. */
  buffers: ArrayBuffer[];
  lengths: number[];
  /** Books that have changed, as they are now. */
  books: Book[];
  /** `ts_send` of packets, ms, a sample for the latency. */
  sent: number[];
  /** When the oldest of it all was received, by this client's clock; 0 where nothing was. */
  oldestMs: number;
  /** Trades and raw records that were let go. */
  dropped: number;
  defined: Map<number, Instrument>;
  /** Rows whose values up to this batch are none any more. */
  cleared: Set<number>;
  /** What the server made of subscriptions, by id: their values are in this batch or were in one before it. */
  answers: Map<number, Answer>;
  /** Rows and what their state has become, one after another. */
  states: [row: number, state: InstrumentState][];
  /** Gaps; their channels as numbers from 1. */
  gaps: [row: number, channel: number, from: number, to: number, reason: string][];
  raw: RawRecord[];
  /** Values beyond 2^53, each under its {@link wideKey}. */
  wide: Map<number, bigint>;
}

/** Where a wide value belongs: an instrument's field of a channel. */
export function wideKey(row: number, channel: number, field: number): number {
  return (row * 8 + channel) * 8 + field;
}

export const NO_COUNTERS: Counters = {
  ...{ messages: 0, updates: 0, conflated: 0, bytes: 0, gaps: 0, reconnects: 0, rttMs: NaN, clockOffsetMs: NaN },
};

export const NO_CONNECTION: Connection = {
  ...{ phase: "connecting", reason: "", code: 0, attempt: 1, retryAt: 0, epoch: 0, version: "", resumed: "fresh" },
};

/** Unix time in ms with fractions, as both sides read it. */
export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}
