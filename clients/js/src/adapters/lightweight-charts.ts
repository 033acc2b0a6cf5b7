/**
 * Bars for lightweight-charts: the server's history of an instrument, continued by its trades.
 *
 * What always holds: the series is updated in order, never before its last bar, as the library demands. A trade of an
 * earlier bar is skipped. After a gap in the trades, and after a restart of the server, the history is loaded again.
 */

import { CLIENT, count, having, SIGNAL, SYMBOL, verify, verifyAll, type Rule } from "../check";
import type { Client } from "../types";

/** A bar as `ISeriesApi<"Candlestick">` and `ISeriesApi<"Bar">` take it; `time` in Unix seconds. */
export interface Bar<Time = number> {
  time: Time;
  open: number;
  high: number;
  low: number;
  close: number;
}

/** The used part of a series. */
export interface BarSeries<Time = number> {
  setData(bars: Bar<Time>[]): void;
  update(bar: Bar<Time>): void;
}

export interface BarOptions {
  symbol: string;
  /** The length of a bar in seconds, 1 to 86,400. Default 60. */
  intervalS?: number;
  /** The server's HTTP URL for the history, as `http://127.0.0.1:9001`; null for no history. Default: the page's. */
  history?: string | URL | null;
  /** The most bars of history, 1 to 5000. Default 500. */
  limit?: number;
  signal?: AbortSignal;
}

/** The answer of `/v1/bars/{symbol}`: columns, oldest first, prices as decimal text or null. */
export interface BarHistory {
  interval_s: number;
  time: number[];
  open: (string | null)[];
  high: (string | null)[];
  low: (string | null)[];
  close: (string | null)[];
}

const HISTORY: Rule = [
  (history) => history === null || urlOf("/", history) !== undefined,
  "an http or https URL, or null for no history",
];
const OPTIONS = {
  ...{ symbol: SYMBOL, intervalS: count(1, 86_400), limit: count(1, 5000) },
  ...{ history: HISTORY, signal: SIGNAL },
};

/** Keeps a series up to date until the returned function, or the signal, ends it. */
export function followBars<Time = number>(client: Client, series: BarSeries<Time>, options: BarOptions): () => void {
  verify("client", client, CLIENT);
  verify("series", series, having("setData", "update"));
  verifyAll("options", options, OPTIONS);
  const { symbol, intervalS = 60, signal } = options;
  verify("symbol", symbol, SYMBOL);
  verify("history", options.history, HISTORY);
  const own = new AbortController();
  const builder = new BarBuilder(intervalS);
  const end = (): void => own.abort();
  signal?.addEventListener("abort", end, { signal: own.signal });
  if (signal?.aborted === true) end();
  const time = (seconds: number): Time => seconds as unknown as Time;
  const seed = async (): Promise<void> => {
    const bars = await readHistory(client, options, intervalS, own.signal);
    if (bars === null || own.signal.aborted) return;
    // Trades that came before the answer are in it or after it: only the newest bar can have parts of both.
    const newest = builder.last;
    builder.last = bars.at(-1);
    if (newest !== undefined) builder.merge(newest);
    series.setData(bars.map((bar) => ({ ...bar, time: time(bar.time) })));
    if (builder.last !== undefined) series.update({ ...builder.last, time: time(builder.last.time) });
  };
  client.onUpdate({ symbols: symbol, channels: "trade", signal: own.signal }, (trade) => {
    const price = client.price(trade.row, trade.px);
    const bar = builder.add((trade.recvMs || trade.eventMs) / 1000, price);
    if (bar !== undefined) series.update({ ...bar, time: time(bar.time) });
  });
  client.on("gap", (gap) => gap.symbol === symbol && gap.channel === "trade" && void seed(), { signal: own.signal });
  void seed();
  return end;
}

/** Builds bars from prices. */
export class BarBuilder {
  last: Bar | undefined;

  constructor(readonly intervalS: number) {}

  /** Adds a price; returns the changed bar, or undefined for a price before the last bar. */
  add(seconds: number, price: number): Bar | undefined {
    if (!Number.isFinite(price)) return undefined;
    const start = Math.floor(seconds / this.intervalS) * this.intervalS;
    return this.merge({ time: start, open: price, high: price, low: price, close: price });
  }

  /** Adds a later part of the last bar, or a later bar. */
  merge(bar: Bar): Bar | undefined {
    const { last } = this;
    if (last !== undefined && bar.time < last.time) return undefined;
    if (last === undefined || bar.time > last.time) return (this.last = { ...bar });
    last.high = Math.max(last.high, bar.high);
    last.low = Math.min(last.low, bar.low);
    last.close = bar.close;
    return last;
  }
}

async function readHistory(
  client: Client,
  options: BarOptions,
  intervalS: number,
  signal: AbortSignal,
): Promise<Bar[] | null> {
  if (options.history === null) return null;
  const path = `/v1/bars/${encodeURIComponent(options.symbol)}?interval_s=${intervalS}&limit=${options.limit ?? 500}`;
  try {
    const answer = await client.fetch(urlOf(path, options.history)!, { signal });
    return answer.ok ? barsOf((await answer.json()) as BarHistory) : null;
  } catch {
    // Without history the chart begins with the next trade.
    return null;
  }
}

/** A path of the server with the history, by default that of the page; undefined where there is none. */
function urlOf(path: string, history: string | URL | undefined): URL | undefined {
  try {
    const url = new URL(path, new URL(history ?? globalThis.location.href, globalThis.location?.href));
    return /^https?:$/.test(url.protocol) ? url : undefined;
  } catch {
    return undefined;
  }
}

/** The bars of a history that have a trade. */
export function barsOf(history: BarHistory): Bar[] {
  const number = (text: string | null): number => (text === null ? NaN : Number(text));
  const bars = history.time.map((time, index) => ({
    time,
    open: number(history.open[index]),
    high: number(history.high[index]),
    low: number(history.low[index]),
    close: number(history.close[index]),
  }));
  return bars.filter(({ open }) => !Number.isNaN(open));
}
