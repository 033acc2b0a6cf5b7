/**
 * Bars for lightweight-charts: the server's history of an instrument, continued by its trades.
 *
 * What always holds: the series is updated in order, never before its last bar, as the library demands; a trade of an
 * earlier bar is skipped. Where trades are missing (a gap, a restart of the server, trades that this client has dropped),
 * the newest bars are loaded again; older ones stay, also those that the server no longer has. One request is under way
 * at a time.
 */

import { Bars, barsOf, type BarHistory, type WholeBar } from "../bars";
import { CLIENT, count, having, SIGNAL, SYMBOL, verify, verifyAll, type Rule } from "../check";
import { FLAGS, type Client, type Connection } from "../types";
import { zoneFormats, zoneRule } from "../zone";

export { barsOf, type BarHistory };

/** A bar as `ISeriesApi<"Candlestick">` and `ISeriesApi<"Bar">` take it; `time` in Unix seconds. */
export interface Bar<Time = number> {
  time: Time;
  open: number;
  high: number;
  low: number;
  close: number;
}

/** The used part of a series. Where it has `applyOptions`, its price format becomes that of the instrument. */
export interface BarSeries<Time = number> {
  setData(bars: Bar<Time>[]): void;
  update(bar: Bar<Time>): void;
  applyOptions?(options: { priceFormat: { type: "price"; precision: number; minMove: number } }): void;
}

/** The used part of an `ISeriesApi<"Histogram">`. */
export interface VolumeSeries<Time = number> {
  setData(bars: { time: Time; value: number; color: string }[]): void;
  update(bar: { time: Time; value: number; color: string }): void;
}

/** The used part of what `createSeriesMarkers(series)` returns. */
export interface SeriesMarks<Time = number> {
  setMarkers(marks: { time: Time; position: "aboveBar"; shape: "square"; color: string; text: string }[]): void;
}

/** The used part of a chart. */
export interface BarChart {
  applyOptions(options: any): void;
  timeScale(): {
    subscribeVisibleLogicalRangeChange(changed: (range: { from: number; to: number } | null) => void): void;
    unsubscribeVisibleLogicalRangeChange(changed: (range: { from: number; to: number } | null) => void): void;
  };
}

export interface BarOptions<Time = number> {
  symbol: string;
  /** The length of a bar in seconds, 1 to 86,400. Default 60. */
  intervalS?: number;
  /** The server's HTTP URL for the history, as `http://127.0.0.1:9001`; null for no history. Default: the page's. */
  history?: string | URL | null;
  /** The most bars of one request for history, 1 to 5000. Default 500. */
  limit?: number;
  /** A histogram series that gets the volume of each bar. */
  volume?: VolumeSeries<Time>;
  /** The colours of the volume of bars that rose, or fell. */
  volumeColors?: readonly [rose: string, fell: string];
  /** The chart: older bars are loaded when its left end comes into view, and `timeZone` is applied to it. */
  chart?: BarChart;
  /** The time zone of the chart's times, as `Europe/Zurich`, `local` or `UTC`. Default: as the chart is, UTC. */
  timeZone?: string;
  /** `createSeriesMarkers(series)`: gets a mark where the server was away, and no bars could be built. */
  marks?: SeriesMarks<Time>;
  signal?: AbortSignal;
}

/** The server's most bars of a request. */
const BARS_MAX = 5000;
const HISTORY: Rule = [
  (history) => history === null || urlOf("/", history) !== undefined,
  "an http or https URL, or null for no history",
];
const COLORS: Rule = [(colors) => Array.isArray(colors) && colors.length === 2, "two colours"];
const OPTIONS = {
  ...{ symbol: SYMBOL, intervalS: count(1, 86_400), limit: count(1, BARS_MAX), history: HISTORY, signal: SIGNAL },
  ...{ volume: having("setData", "update"), volumeColors: COLORS, marks: having("setMarkers") },
  ...{ chart: having("applyOptions", "timeScale"), timeZone: zoneRule },
};

/** Half transparent, so that candles over them are seen. */
const VOLUME_COLORS = ["#26a69a80", "#ef535080"] as const;
const MARK_COLOR = "#8a8f98";
/** Decimals that the library draws: from 17 on its price axis throws. */
const DECIMALS_MAX = 12;
/** Bars left of the view at which older ones are requested. */
const SPARE_BARS = 20;
/** A bar of the server is complete this long after its end. */
const COMPLETE_MS = 1000;
/** After a request that failed: the first wait, which doubles, and the longest. */
const AGAIN_MS = 1000;
const AGAIN_MOST_MS = 60_000;

/** Keeps a series up to date until the returned function, or the signal, ends it. */
export function followBars<Time = number>(
  client: Client,
  series: BarSeries<Time>,
  options: BarOptions<Time>,
): () => void {
  verify("client", client, CLIENT);
  verify("series", series, having("setData", "update"));
  verifyAll("options", options, OPTIONS);
  verify("symbol", options.symbol, SYMBOL);
  verify("history", options.history, HISTORY);
  return new Following(client, series, options).end;
}

class Following<Time> {
  readonly #bars: Bars;
  readonly #own = new AbortController();
  #isBusy = false;
  /** The newest bars are to be requested once more. */
  #isDue = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Requests for the newest bars since the last that was answered. */
  #failures = 0;
  /** The first second of the oldest answer; NaN before the first one. */
  #oldest = NaN;
  /** The server has no older bars. */
  #isWhole = false;
  /** When the connection was lost, Unix seconds; NaN while it is not. */
  #lostS = NaN;
  /** The server's epoch; 0 before it is known. And whether it has changed since the last answer. */
  #epoch = 0;
  #isRestarted = false;
  readonly #marks: { time: number; text: string }[] = [];
  #drawnMarks = 0;
  readonly #timeText: (seconds: number) => string;

  constructor(
    readonly client: Client,
    readonly series: BarSeries<Time>,
    readonly options: BarOptions<Time>,
  ) {
    const { symbol, chart, timeZone, signal: given } = options;
    this.#bars = new Bars(options.intervalS ?? 60);
    const formats = zoneFormats(timeZone ?? "UTC");
    this.#timeText = formats.localization.timeFormatter;
    const { signal } = this.#own;
    given?.addEventListener("abort", this.end, { signal });
    if (given?.aborted === true) this.end();
    if (signal.aborted) return;
    if (chart !== undefined && timeZone !== undefined) chart.applyOptions(formats);
    client.onUpdate({ symbols: symbol, channels: "trade", signal }, (trade) => this.#trade(trade));
    client.on("gap", (gap) => gap.symbol === symbol && gap.channel === "trade" && this.#seed(), { signal });
    // Which trades were dropped is not known.
    client.on("lag", ({ dropped }) => dropped > 0 && this.#seed(), { signal });
    client.on("instrument", (instrument) => instrument.symbol === symbol && this.#defined(), { signal });
    client.on("connection", (connection) => this.#connectionChanged(connection), { signal });
    this.#epoch = client.connection.epoch;
    if (client.instruments.row(symbol) >= 0) this.#applyFormat();
    if (chart !== undefined && options.history !== null) {
      chart.timeScale().subscribeVisibleLogicalRangeChange(this.#scrolled);
      signal.addEventListener("abort", () => chart.timeScale().unsubscribeVisibleLogicalRangeChange(this.#scrolled));
    }
    this.#seed();
  }

  readonly end = (): void => {
    clearTimeout(this.#timer);
    this.#own.abort();
  };

  #trade({ row, px, sz, flags, recvMs, eventMs }: TradeLike): void {
    const { client } = this;
    // The last trade of a snapshot is in the server's bars already.
    const size = flags & FLAGS.snapshot ? 0 : client.size(row, sz);
    const bar = this.#bars.add((recvMs || eventMs) / 1000, client.price(row, px), size);
    if (bar === undefined) return;
    this.series.update(this.#shown(bar));
    this.options.volume?.update(this.#volume(bar));
    if (this.#drawnMarks < this.#marks.length) this.#drawMarks();
    if (this.#bars.isDue) this.#later(COMPLETE_MS, () => void this.#correct());
  }

  /** It was defined for the first time, again after a restart of the server, or with other exponents. */
  #defined(): void {
    this.#applyFormat();
    if (this.#failures > 0 || this.#isRestarted) this.#seed();
  }

  #connectionChanged({ phase, resumed, epoch }: Connection): void {
    if (phase === "waiting" && Number.isNaN(this.#lostS)) this.#lostS = Date.now() / 1000;
    if (phase !== "live") return;
    this.#isRestarted ||= this.#epoch !== 0 && epoch !== this.#epoch;
    this.#epoch = epoch;
    // Nothing is missing.
    if (resumed === "replay" || resumed === "fresh") this.#lostS = NaN;
  }

  #applyFormat(): void {
    const { instruments } = this.client;
    const row = instruments.row(this.options.symbol);
    const precision = decimalsOf(instruments.pxExp[row] ?? 0, instruments.tickSize[row] ?? NaN);
    this.series.applyOptions?.({ priceFormat: { type: "price", precision, minMove: Number(`1e-${precision}`) } });
  }

  #later(ms: number, run: () => void): void {
    if (this.options.history === null) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      run();
    }, ms);
  }

  /** Loads the newest bars. */
  #seed(): void {
    this.#isDue = true;
    void this.#load();
  }

  readonly #scrolled = (range: { from: number } | null): void => {
    if (range !== null && range.from < SPARE_BARS && !this.#isWhole && !Number.isNaN(this.#oldest)) void this.#load();
  };

  /** Loads the joint again, which is over. A restart of the server leaves it as it is: the new one has only a part of it. */
  async #correct(): Promise<void> {
    if (this.#isBusy || !this.#bars.isDue || this.#isRestarted) return;
    this.#isBusy = true;
    const { last, due } = this.#bars;
    const history = await this.#request(last!.time, Math.min(Math.ceil(due), BARS_MAX));
    this.#isBusy = false;
    if (this.#own.signal.aborted) return;
    if (history !== null && !this.#isRestarted) {
      this.#bars.correct(barsOf(history));
      this.#draw();
    }
    if (this.#isDue) void this.#load();
  }

  /** One request after the other: the newest bars if they are due, else older ones. */
  async #load(): Promise<void> {
    if (this.#isBusy || this.options.history === null || this.#own.signal.aborted) return;
    this.#isBusy = true;
    const isNewest = this.#isDue;
    this.#isDue = false;
    const history = await this.#request(isNewest ? undefined : this.#oldest);
    this.#isBusy = false;
    if (this.#own.signal.aborted) return;
    // Without history the chart begins with the next trade.
    if (isNewest) this.#failures = history === null ? this.#failures + 1 : 0;
    if (history === null) this.#later(Math.min(AGAIN_MOST_MS, AGAIN_MS * 2 ** this.#failures), () => this.#seed());
    else if (isNewest) this.#takeNewest(history);
    else this.#takeOlder(history);
    if (this.#isDue) void this.#load();
  }

  #takeNewest(history: BarHistory): void {
    const bars = barsOf(history);
    this.#bars.join(bars, history.since, this.#isRestarted);
    if (this.#isRestarted && !Number.isNaN(this.#lostS)) this.#markAway(history.since);
    if (Number.isNaN(this.#oldest)) this.#oldest = history.time[0] ?? NaN;
    if (this.client.connection.phase === "live") this.#lostS = NaN;
    this.#isRestarted = false;
    this.#draw();
  }

  #takeOlder(history: BarHistory): void {
    this.#isWhole = history.time.length === 0;
    if (this.#isWhole) return;
    this.#oldest = history.time[0];
    this.#bars.prepend(barsOf(history));
    this.#draw();
  }

  /** The server was away until `since`: the mark is at the first bar after it. */
  #markAway(since: number): void {
    const from = this.#timeText(Math.min(this.#lostS, since));
    this.#marks.push({ time: since, text: `server away ${from} to ${this.#timeText(since)}` });
  }

  #draw(): void {
    const { list } = this.#bars;
    this.series.setData(list.map((bar) => this.#shown(bar)));
    this.options.volume?.setData(list.map((bar) => this.#volume(bar)));
    this.#drawMarks();
  }

  /** A mark is at a bar: one without a bar after it waits for that. */
  #drawMarks(): void {
    const { list } = this.#bars;
    const at = (since: number): number | undefined =>
      list.find(({ time }) => time + this.#bars.intervalS > since)?.time;
    const marks = this.#marks.map(({ time, text }) => ({ time: at(time), text })).filter(({ time }) => time !== undefined);
    this.#drawnMarks = marks.length;
    const look = { position: "aboveBar", shape: "square", color: MARK_COLOR } as const;
    this.options.marks?.setMarkers(marks.map(({ time, text }) => ({ ...look, time: time as unknown as Time, text })));
  }

  #shown({ time, open, high, low, close }: WholeBar): Bar<Time> {
    return { time: time as unknown as Time, open, high, low, close };
  }

  #volume({ time, open, close, volume }: WholeBar): { time: Time; value: number; color: string } {
    const color = (this.options.volumeColors ?? VOLUME_COLORS)[close < open ? 1 : 0];
    return { time: time as unknown as Time, value: volume, color };
  }

  /** The newest bars, or those before a second; null where there is no answer. */
  async #request(to?: number, limit = this.options.limit ?? 500): Promise<BarHistory | null> {
    const { symbol, history } = this.options;
    const before = to === undefined ? "" : `&to=${to}`;
    const query = `interval_s=${this.#bars.intervalS}&limit=${limit}${before}`;
    try {
      const url = urlOf(`/v1/bars/${encodeURIComponent(symbol)}?${query}`, history)!;
      const answer = await this.client.fetch(url, { signal: this.#own.signal });
      return answer.ok ? ((await answer.json()) as BarHistory) : null;
    } catch {
      return null;
    }
  }
}

interface TradeLike {
  readonly row: number;
  readonly px: number;
  readonly sz: number;
  readonly flags: number;
  readonly recvMs: number;
  readonly eventMs: number;
}

/** The decimals of an instrument's prices: those of its tick, or of its exponent where it has none. */
export function decimalsOf(pxExp: number, tickSize: number): number {
  let decimals = Math.max(0, -pxExp);
  if (tickSize > 0) for (let rest = tickSize; rest % 10 === 0 && decimals > 0; rest /= 10) decimals--;
  return Math.min(decimals, DECIMALS_MAX);
}

/** A path of the server with the history, by default that of the page; undefined where there is none. */
function urlOf(path: string, history: string | URL | null | undefined): URL | undefined {
  try {
    const url = new URL(path, new URL(history ?? globalThis.location.href, globalThis.location?.href));
    return /^https?:$/.test(url.protocol) ? url : undefined;
  } catch {
    return undefined;
  }
}
