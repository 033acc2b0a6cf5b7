/** Checks and defaults of the application's options. Invalid ones throw in the call that passes them. */

import type { Settings } from "./messages";
import type { Channel, ConnectOptions, SubscribeOptions } from "./types";
import { CHANNELS } from "./wire";

const SYMBOL_BYTES_MAX = 255;
const PATH = "/v1/stream";

/** The settings of the stream side. */
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

/** A conflation interval; the server's longest is a second. */
export function interval(ms: number): number {
  return Math.min(Math.ceil(atLeast("conflateMs", 0, ms)), 1000);
}

/** The same, where null and undefined stand for the client's interval. */
export function intervalOrNull(ms: number | null | undefined): number | null {
  return ms == null ? null : interval(ms);
}

/** Calls back when a signal aborts, at once if it already has; not after `until` has aborted. */
export function onAbort(signal: AbortSignal | undefined, aborted: () => void, until?: AbortSignal): void {
  if (signal?.aborted) aborted();
  else signal?.addEventListener("abort", aborted, { signal: until });
}

function atLeast(name: string, least: number, value: number): number {
  if (!(value >= least)) throw new RangeError(`${name}: ${value} is out of range: expected ${least} or more`);
  return value;
}

/** Symbols and patterns, each once. */
export function symbolsOf(symbols: SubscribeOptions["symbols"]): string[] {
  const list = [...new Set(typeof symbols === "string" ? [symbols] : symbols)];
  for (const symbol of list) {
    const bytes = typeof symbol === "string" ? new TextEncoder().encode(symbol).length : 0;
    if (!bytes || bytes > SYMBOL_BYTES_MAX || /\*./.test(symbol)) {
      throw new TypeError(`symbols: invalid name "${symbol}": expected 1 to 255 bytes, at most one * at the end`);
    }
  }
  return list;
}

/** Channels in the order of the wire, each once. */
export function channelsOf(channels: SubscribeOptions["channels"] = "quote"): Channel[] {
  const list = typeof channels === "string" ? [channels] : channels;
  if (list.length === 0 || !list.every((channel) => CHANNELS.includes(channel))) {
    throw new TypeError(`channels: invalid list "${list}": expected some of ${CHANNELS.join(", ")}`);
  }
  return CHANNELS.filter((channel) => list.includes(channel));
}

/** The URL of the stream: with `ws:` or `wss:`, and the path `/v1/stream` where it has none. */
export function streamUrl(given: string | URL | undefined): string {
  const url = new URL(given ?? PATH, base());
  url.protocol = url.protocol.replace("http", "ws");
  if (!/^wss?:/.test(url.href)) throw new TypeError(`url: invalid scheme in "${url}": expected ws, wss, http or https`);
  if (url.pathname === "/") url.pathname = PATH;
  url.hash = "";
  return url.href;
}

/** The script's URL; of a bundled one that is no URL of a server, the page's. */
function base(): string | undefined {
  const script = import.meta.url;
  return /^https?:/.test(script) ? script : globalThis.location?.href;
}
