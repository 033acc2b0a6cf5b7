/** Checks and defaults of the application's options. Invalid ones throw in the call that passes them. */

import { ANY, between, FUNCTION, oneOf, SIGNAL, verify, verifyAll, type Rule } from "./check";
import type { Settings } from "./messages";
import type { Channel, ConnectOptions, SubscribeOptions } from "./types";
import { CHANNELS } from "./wire";

const SYMBOL_BYTES_MAX = 255;
const PATH = "/v1/stream";

const NULL_OR_MS: Rule = [(value) => value === null || MS[0](value), "0 to 1000, or null", true];
const MS = between(0, 1000);
const COUNT: Rule = [
  (value) => value >= 1 && (value === Infinity || Number.isInteger(value)),
  "a whole number from 1, or Infinity",
  true,
];
/** A timer cannot wait longer. */
const DELAY = between(0, 2 ** 31 - 1);
const DELAYS = { firstMs: DELAY, mostMs: DELAY, settledMs: DELAY };

const CONNECT: Record<string, Rule> = {
  url: [(url) => typeof url === "string" || url instanceof URL || FUNCTION[0](url), "a URL, or a function for one"],
  token: [(token) => typeof token === "string" || FUNCTION[0](token), "a token, or a function for one"],
  conflateMs: NULL_OR_MS,
  hiddenConflateMs: NULL_OR_MS,
  worker: [(worker) => worker === "auto" || worker === false || FUNCTION[0](worker), '"auto", false or a function'],
  signal: SIGNAL,
  pull: oneOf("frame", "immediate"),
  bookDepth: COUNT,
  tradeBacklog: COUNT,
  lagMs: between(0, Infinity),
  WebSocket: FUNCTION,
  reconnect: [(delays) => verifyAll("reconnect", delays, DELAYS) === undefined, ""],
};

const NAMES: Rule = [(names) => typeof names === "string" || names?.[Symbol.iterator], "a name, or a list of names"];
/** What a name or pattern cannot have, by the protocol's grammar of symbols. */
const WRONG = /^ | $|\*.|[^\P{White_Space} ]|[\p{Cc}\p{Cs}\p{DI}]/su;
const NAME: Rule = [
  (name) => {
    const bytes = typeof name === "string" ? new TextEncoder().encode(name).length : 0;
    return bytes && bytes <= SYMBOL_BYTES_MAX && !WRONG.test(name);
  },
  "1 to 255 bytes, visible, spaces only inside, at most one * at the end",
];
const CHANNEL = oneOf(...CHANNELS);
const LIST: Rule = [(list) => Array.isArray(list) && list.length, "a channel, or a list of channels"];

/** Checks the options of {@link connect}, and returns the settings of the stream side. */
export function settingsOf(options: ConnectOptions): Settings {
  verifyAll("options", options, CONNECT);
  // Throws for an invalid URL here, not with the first attempt.
  if (typeof options.url !== "function") streamUrl(options.url);
  const { conflateMs, bookDepth = 50, tradeBacklog = 10_000, reconnect = {}, token } = options;
  // Another call of a function may bring another token.
  const tokenTries = typeof token === "function" ? 3 : token ? 1 : 0;
  const { firstMs = 500, mostMs = 30_000, settledMs = 5000 } = reconnect;
  return { conflateMs: conflateMs ?? 100, bookDepth, tradeBacklog, firstMs, mostMs, settledMs, tokenTries };
}

/** Checks the options of a subscription but for its names and channels, or of a listener. */
export function verifyOptions(options: object): void {
  verifyAll("options", options, { symbols: ANY, channels: ANY, conflateMs: NULL_OR_MS, signal: SIGNAL });
}

/** A conflation interval. */
export function interval(name: string, ms: number): number {
  verify(name, ms, MS);
  return ms;
}

/** The same, where null and undefined stand for the client's interval. */
export function intervalOrNull(name: string, ms: number | null = null): number | null {
  verify(name, ms, NULL_OR_MS);
  return ms;
}

/** Calls back when a signal aborts, at once if it already has; not after `until` has aborted. */
export function onAbort(signal: AbortSignal | null | undefined, aborted: () => void, until?: AbortSignal): void {
  if (signal?.aborted) aborted();
  else signal?.addEventListener("abort", aborted, { signal: until });
}

/** Symbols and patterns, each once. */
export function symbolsOf(symbols: SubscribeOptions["symbols"]): string[] {
  verify("symbols", symbols, NAMES);
  const list = [...new Set(typeof symbols === "string" ? [symbols] : symbols)];
  for (const symbol of list) verify("symbols", symbol, NAME);
  return list;
}

/** Channels in the order of the wire, each once. */
export function channelsOf(channels: SubscribeOptions["channels"] = "quote"): Channel[] {
  const list = typeof channels === "string" ? [channels] : channels;
  verify("channels", list, LIST);
  for (const channel of list) verify("channels", channel, CHANNEL);
  return CHANNELS.filter((channel) => list.includes(channel));
}

/** The URL of the stream: with `ws:` or `wss:`, and the path `/v1/stream` where it has none. */
export function streamUrl(given: string | URL = PATH): string {
  let url: URL | undefined;
  try {
    // An empty text would be the page itself.
    url = new URL(given || "//", base());
    url.protocol = url.protocol.replace("http", "ws");
  } catch {
    // Reported below.
  }
  verify("url", `${given}`, [() => /^wss?:/.test(`${url}`), "a ws, wss, http or https URL"]);
  if (url!.pathname === "/") url!.pathname = PATH;
  url!.hash = "";
  return url!.href;
}

/** The script's URL; of a bundled one that is no URL of a server, the page's. */
function base(): string | undefined {
  const script = import.meta.url;
  return /^https?:/.test(script) ? script : globalThis.location?.href;
}
