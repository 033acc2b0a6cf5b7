/** What an application gives, checked: mistakes are told where they are made. */

import type { Settings } from "./messages";
import type { Channel, ConnectOptions, SubscribeOptions } from "./types";
import { CHANNELS } from "./wire";

const SYMBOL_BYTES_MAX = 255;
const PATH = "/v1/stream";

/** The settings of the stream's side. */
export function settingsOf(options: ConnectOptions): Settings {
  const { bookDepth = 50, tradeBacklog = 10_000, reconnect } = options;
  return {
    conflateMs: interval(options.conflateMs ?? 100),
    bookDepth: atLeast("bookDepth", 1, bookDepth),
    tradeBacklog: atLeast("tradeBacklog", 1, tradeBacklog),
    ...{ firstMs: 500, mostMs: 30_000, settledMs: 5000 },
    ...reconnect,
  };
}

/** An interval; the server's longest is a second. */
export function interval(ms: number): number {
  return Math.min(Math.ceil(atLeast("conflateMs", 0, ms)), 1000);
}

/** The same, where null or nothing is the client's. */
export function intervalOrNull(ms: number | null | undefined): number | null {
  return ms == null ? null : interval(ms);
}

/** Calls back when a signal aborts, at once if it has; not after `until` has aborted. */
export function onAbort(signal: AbortSignal | undefined, aborted: () => void, until?: AbortSignal): void {
  if (signal?.aborted) aborted();
  else signal?.addEventListener("abort", aborted, { signal: until });
}

function atLeast(name: string, least: number, value: number): number {
  if (!(value >= least)) throw new RangeError(`${name}: ${value}; want ${least} or more`);
  return value;
}

/** Symbols, each once. */
export function symbolsOf(symbols: SubscribeOptions["symbols"]): string[] {
  const list = [...new Set(typeof symbols === "string" ? [symbols] : symbols)];
  for (const symbol of list) {
    const bytes = typeof symbol === "string" ? new TextEncoder().encode(symbol).length : 0;
    if (!bytes || bytes > SYMBOL_BYTES_MAX || /\*./.test(symbol)) {
      throw new TypeError(`symbols: ${symbol}; want 1 to 255 bytes, or one * at the end`);
    }
  }
  return list;
}

/** Channels as a list in the order of the wire, each once. */
export function channelsOf(channels: SubscribeOptions["channels"] = "quote"): Channel[] {
  const list = typeof channels === "string" ? [channels] : channels;
  if (list.length === 0 || !list.every((channel) => CHANNELS.includes(channel))) {
    throw new TypeError(`channels: ${list}; have ${CHANNELS.join(", ")}`);
  }
  return CHANNELS.filter((channel) => list.includes(channel));
}

/** The stream's URL: `ws:` or `wss:`, and `/v1/stream` where no path is named. */
export function streamUrl(given: string | URL | undefined): string {
  const url = new URL(given ?? PATH, base());
  url.protocol = url.protocol.replace("http", "ws");
  if (!/^wss?:/.test(url.href)) throw new TypeError(`url: ${url}; want ws or http`);
  if (url.pathname === "/") url.pathname = PATH;
  url.hash = "";
  return url.href;
}

/** Where the script came from; a bundled one has come from the page's server. */
function base(): string | undefined {
  const script = import.meta.url;
  return /^https?:/.test(script) ? script : globalThis.location?.href;
}
