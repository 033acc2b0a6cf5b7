/**
 * The messages between the page side and the stream side: by postMessage, or by direct calls where there is no worker.
 */

import type { Authenticated, Book, Channel, ClientError, Connection, Instrument, InstrumentState } from "./types";
import type { RawRecord, SubscriptionResult, TokenRequest } from "./types";

/** The name of our workers: in others the stream side's file does nothing by itself. */
export const NAME = "tickcast";

/** Settings of the stream side. */
export interface Settings {
  readonly conflateMs: number;
  readonly bookDepth: number;
  readonly tradeBacklog: number;
  readonly firstMs: number;
  readonly mostMs: number;
  readonly settledMs: number;
  /** Refused tokens in a row after which the client ends; 0 where it has none, 1 for one that never changes. */
  readonly tokenTries: number;
}

/** A subscription of the application. */
export interface SubscriptionSpec {
  readonly id: number;
  /** Counts its changes, so that an answer can be assigned to one of them. */
  readonly revision: number;
  readonly symbols: readonly string[];
  readonly channels: readonly Channel[];
  /** Its own conflation interval; null for the client's. */
  readonly ms: number | null;
}

/**
 * From the page side. `sub` adds or changes a subscription, `end` ends it; `ms` sets the client's interval, and the
 * shortest one to request while the page is hidden.
 */
export type Command =
  | { t: "open"; settings: Settings }
  | { t: "url"; url: string; token?: string; error?: string }
  | { t: "token"; token?: string; error?: string }
  | ({ t: "sub" } & SubscriptionSpec)
  | { t: "end"; id: number }
  | { t: "ms"; ms: number; leastMs: number }
  | { t: "online" }
  | { t: "reconnect" }
  | { t: "pull"; spent: Batch | null }
  | { t: "close" };

/** Counters since the start, and the results of the pings. */
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

/** From the stream side. `dirty` is sent once, for the first change after a batch. */
export type Report =
  | { t: "ready" }
  | { t: "url"; why: TokenRequest }
  | { t: "token"; why: TokenRequest }
  | { t: "identity"; identity: Authenticated }
  | { t: "dirty" }
  | { t: "batch"; batch: Batch }
  | { t: "connection"; connection: Connection }
  | { t: "error"; error: ClientError }
  | { t: "counters"; counters: Counters; atMs: number };

/** The server's answer to a subscription. */
export interface Answer {
  /** The revision that was answered. */
  readonly revision: number;
  readonly result: SubscriptionResult;
  /** Its snapshot is complete. */
  readonly done: boolean;
}

/** All changes since the last batch. Its buffers return to the stream side with the next pull. */
export interface Batch {
  /** Columns of quotes, trades and tickers, by channel from 1, and the number of entries in each. */
  buffers: ArrayBuffer[];
  lengths: number[];
  /** Books that have changed, in their present state. */
  books: Book[];
  /** `ts_send` of packets, ms: a sample for the latency. */
  sent: number[];
  /** When the oldest change was received, by this client's clock; 0 where nothing was received. */
  oldestMs: number;
  /** Trades and raw records that were dropped. */
  dropped: number;
  defined: Map<number, Instrument>;
  /** Rows whose values up to this batch are void. */
  cleared: Set<number>;
  /** The server's answers to subscriptions, by id: their values are in this batch or in an earlier one. */
  answers: Map<number, Answer>;
  /** Rows and their new states, in order. */
  states: [row: number, state: InstrumentState][];
  /** Gaps; their channels as numbers from 1. */
  gaps: [row: number, channel: number, from: number, to: number, reason: string][];
  raw: RawRecord[];
  /** Rows of instruments that the server has released: this batch has their last values. */
  gone: number[];
}

export const NO_COUNTERS: Counters = {
  ...{ messages: 0, updates: 0, conflated: 0, bytes: 0, gaps: 0, reconnects: 0, rttMs: NaN, clockOffsetMs: NaN },
};

export const NO_CONNECTION: Connection = {
  ...{ phase: "connecting", reason: "", code: 0, attempt: 1, retryAt: 0, epoch: 0, version: "", resumed: "fresh" },
  ...{ delayS: 0, user: "", expiresAt: 0, login: "none" },
};

/** Unix time in ms with fractions, the same on both sides. */
export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}
