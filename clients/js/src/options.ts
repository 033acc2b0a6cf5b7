/** What an application gives, checked: mistakes are told where they are made. */

import type { Settings } from "./messages";
import type { Channel, ConnectOptions, SubscribeOptions } from "./types";
import { CHANNELS } from "./wire";

const SYMBOL_BYTES_MAX = 255;

/** The settings of the stream's side. */
export function settingsOf(options: ConnectOptions): Settings {
  const { hiddenConflateMs = 1000, bookDepth = 50, tradeBacklog = 10_000, reconnect = {} } = options;
  return {
    conflateMs: interval(options.conflateMs ?? 100),
    hiddenConflateMs: hiddenConflateMs === null ? null : interval(hiddenConflateMs),
    bookDepth: positive("bookDepth", bookDepth),
    tradeBacklog: positive("tradeBacklog", tradeBacklog),
    firstMs: reconnect.firstMs ?? 500,
    mostMs: reconnect.mostMs ?? 30_000,
    settledMs: reconnect.settledMs ?? 5000,
  };
}

function positive(name: string, value: number): number {
  if (!(value >= 1)) throw new RangeError(`${name}: ${value}; want 1 or more`);
  return value;
}

/** An interval; the server's longest is a second. */
export function interval(ms: number): number {
  if (!(ms >= 0)) throw new RangeError(`conflateMs: ${ms}; want 0 or more`);
  return Math.min(Math.ceil(ms), 1000);
}

/** Symbols, each once. */
export function symbolsOf(symbols: SubscribeOptions["symbols"]): string[] {
  const list = [...new Set(typeof symbols === "string" ? [symbols] : symbols)];
  for (const symbol of list) {
    if (typeof symbol !== "string" || symbol === "" || symbol.slice(0, -1).includes("*")) {
      throw new TypeError(`symbols: ${JSON.stringify(symbol)}; want a name such as "BTC-USD", or one * at the end`);
    }
    // A character has at most three bytes for each of its code units.
    if (symbol.length * 3 > SYMBOL_BYTES_MAX && new TextEncoder().encode(symbol).length > SYMBOL_BYTES_MAX) {
      throw new TypeError(`symbols: ${symbol.slice(0, 20)}…; a name has at most ${SYMBOL_BYTES_MAX} bytes`);
    }
  }
  return list;
}

/** Channels as a list in the order of the wire, each once. */
export function channelsOf(channels: SubscribeOptions["channels"] = "quote"): Channel[] {
  const list = typeof channels === "string" ? [channels] : channels;
  const wrong = list.find((channel) => !CHANNELS.includes(channel));
  if (wrong !== undefined || list.length === 0) {
    throw new TypeError(`channels: ${JSON.stringify(wrong ?? [])}; have ${CHANNELS.join(", ")}`);
  }
  return CHANNELS.filter((channel) => list.includes(channel));
}

/** Channels as bits from 1 << 1. */
export function bitsOf(channels: readonly Channel[]): number {
  return channels.reduce((bits, channel) => bits | (2 << CHANNELS.indexOf(channel)), 0);
}

/** The stream's URL: `ws:` or `wss:`, and `/v1/stream` where no path is named. */
export function streamUrl(given: string | URL | undefined): string {
  const url = new URL(given ?? "", base());
  url.protocol = url.protocol.replace("http", "ws");
  if (url.protocol !== "ws:" && url.protocol !== "wss:")
    throw new TypeError(`url: ${url}; want ws, wss, http or https`);
  if (given === undefined || url.pathname === "/") url.pathname = "/v1/stream";
  url.hash = "";
  if (given === undefined) url.search = "";
  return url.href;
}

/** Where the script came from; a bundled one has come from the page's server. */
function base(): string | undefined {
  const script = import.meta.url;
  return /^https?:/.test(script) ? script : (globalThis.location?.href ?? undefined);
}
