/** What the page's side and the stream's side say to each other: by postMessage, or directly where there is no worker. */

import type { ClientError, Connection, Instrument, SubscriptionResult } from "./types";

/** Settings that the stream's side needs. */
export interface Settings {
  readonly conflateMs: number;
  readonly hiddenConflateMs: number | null;
  readonly bookDepth: number;
  readonly tradeBacklog: number;
  readonly firstMs: number;
  readonly mostMs: number;
  readonly settledMs: number;
}

/** From the page. `sub` begins and changes a subscription, `end` ends it; `ms` null is the client's interval. */
export type Command =
  | { t: "open"; settings: Settings }
  | { t: "url"; url: string; error?: string }
  | { t: "sub"; id: number; symbols: readonly string[]; channels: number; ms: number | null }
  | { t: "end"; id: number }
  | { t: "ms"; ms: number }
  | { t: "hidden"; hidden: boolean }
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
  /** The server's clock minus `Date.now()`'s, in ms. */
  offsetMs: number;
}

/** From the stream's side. `dirty` is said once, when something has come since the last batch. */
export type Report =
  | { t: "ready" }
  | { t: "url" }
  | { t: "dirty" }
  | { t: "batch"; batch: Batch }
  | { t: "connection"; connection: Connection }
  | { t: "subscribed"; id: number; result: SubscriptionResult; done: boolean }
  | { t: "error"; error: ClientError }
  | { t: "counters"; counters: Counters };

/** A Gap, its channel as a number from 1. */
export type RawGap = readonly [row: number, channel: number, from: number, to: number, reason: string];

/** A value beyond 2^53: a key of {@link wideKey}. */
export type Wide = readonly [key: number, value: bigint];

/** All that has changed since the last batch. Its arrays go back to their owner with the next pull. */
export interface Batch {
  /** Rows that have changed and bits of CHANGED: the first `length` count. */
  length: number;
  rows: Uint32Array<ArrayBuffer>;
  what: Uint8Array<ArrayBuffer>;
  /** The values of these rows, one after another in the order of the bits. */
  values: Float64Array<ArrayBuffer>;
  /** Columns of TRADE_LIST, of so many trades in a buffer of such a capacity. */
  trades: ArrayBuffer;
  tradesLength: number;
  tradesCapacity: number;
  dropped: number;
  /** `ts_send` of packets, ms, a sample for the latency. */
  sent: Float64Array<ArrayBuffer>;
  sentLength: number;
  /** When the oldest of it all was received, by this client's clock. */
  oldestMs: number;
  defined: Instrument[];
  gaps: RawGap[];
  raw: { row: number; sequence: number; recvMs: number; payload: Uint8Array }[];
  wide: Wide[];
}

/** Where a wide value belongs: an instrument's field of a channel. */
export function wideKey(row: number, channel: number, field: number): number {
  return (row * 8 + channel) * 8 + field;
}

/** States as they travel. */
export const STATES = ["LIVE", "STALE", "RESYNCING", "HALTED", "ENDED"] as const;

/** What is passed over rather than copied. */
export function transferable(batch: Batch): ArrayBuffer[] {
  return [batch.rows.buffer, batch.what.buffer, batch.values.buffer, batch.trades, batch.sent.buffer];
}

/** Unix time in ms with fractions, as both sides read it. */
export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}
