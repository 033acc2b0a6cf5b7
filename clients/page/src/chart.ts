/**
 * The chart of the chosen instrument: candles of trades, a band of bid and ask, and volume. `candles.ts` explains how
 * history and live events are joined.
 *
 * Events change the candles as they come; ten times a second a timer draws the changed bars. It is a timer and not a
 * frame, so that the last change is drawn although no further frame follows.
 */

import type { Frame } from "tickcast";
import { CHANGED } from "tickcast";
import { type Bar, type BarsAnswer, Candles, barsOf } from "./candles.ts";
import { barsCsv } from "./chart-files.ts";
import { ChartView } from "./chart-view.ts";
import { attribute, field, mark, part, radioGroup, write } from "./dom.ts";
import { fileName } from "./csv.ts";
import { savePicture, saveText } from "./files.ts";
import { beyondText, intervalText } from "./format.ts";
import type { Market } from "./market.ts";
import { Menu } from "./menu.ts";
import { OlderBars } from "./older-bars.ts";
import { isFlag, isNumber, recall, remember } from "./store.ts";
import type { Zone } from "./zones.ts";

/** The interval at which {@link Chart.draw} is to be called. */
export const DRAW_EVERY_MS = 100;
const HISTORY_BARS = 1000;
/** Delays of further requests where the server answers 404 for an instrument that it has just defined. */
const RETRIES_MS: readonly number[] = [500, 1000, 2000, 4000];
export const INTERVALS_S: readonly number[] = [1, 5, 60, 300, 900, 3600, 86_400];

export class Chart {
  readonly #root: HTMLElement;
  readonly #market: Market;
  readonly #view: ChartView;
  readonly #older: OlderBars;
  readonly #checkInterval: (value: string) => void;
  /** After the names of stored settings: several charts have some of their own. */
  readonly #suffix: string;
  #intervalS: number;
  #band: boolean;
  #candles: Candles;
  #row = -1;
  /** Bars with changes that are not drawn yet. */
  #changed = new Set<Bar>();
  /** The newest bar of the history: it is requested again once it is over, for its volume. */
  #joint = NaN;
  #loading: AbortController | null = null;
  /** History is requested when the server defines the instrument. */
  #awaitsDefinition = false;
  #retry = 0;
  #retries = 0;

  constructor(root: HTMLElement, market: Market, suffix = "") {
    this.#root = root;
    this.#market = market;
    this.#suffix = suffix;
    this.#intervalS = recall(`interval${suffix}`, 5, isInterval);
    this.#band = recall(`band${suffix}`, true, isFlag);
    this.#candles = new Candles(this.#intervalS);
    this.#older = new OlderBars(market);
    this.#view = new ChartView(field(root, "canvas"), field(root, "legend"), part(root, "[data-action=to-now]"), {
      nearOldest: () => this.#loadOlder(),
      scaled: (beyond, showsAll) => this.#showScale(beyond, showsAll),
    });
    this.#checkInterval = radioGroup(field(root, "interval"), "interval", (value) => this.setInterval(Number(value)));
    this.#checkInterval(String(this.#intervalS));
    const band = part(root, "[data-action=band]");
    const showBand = (): void => {
      band.setAttribute("aria-pressed", String(this.#band));
      this.#view.showBand(this.#band);
    };
    band.addEventListener("click", () => {
      this.#band = !this.#band;
      remember(`band${this.#suffix}`, this.#band);
      showBand();
    });
    showBand();
    for (const name of ["beyond", "show-all"]) {
      part(root, `[data-action=${name}]`).addEventListener("click", () => this.toggleAll());
    }
    part(root, "[data-action=bars-csv]").addEventListener("click", () => this.#saveBars());
    part(root, "[data-action=picture]").addEventListener("click", () => this.#savePicture());
    new Menu(part(root, ".menu"));
  }

  /** Shows every price, or leaves outliers outside of the scale. */
  toggleAll(): void {
    this.#view.showAll(!this.#view.showsAll);
  }

  /** The times are shown in another zone. */
  set zone(zone: Zone) {
    this.#view.setZone(zone);
    this.#showZone();
  }

  choose(row: number): void {
    this.#row = row;
    this.#start();
  }

  /** The server has defined an instrument, for the first time or after a restart. */
  defined(row: number): void {
    if (row === this.#row && this.#awaitsDefinition) this.reload();
  }

  /** The instrument has other exponents. Bars are floats: only their texts change. */
  rescaled(): void {
    this.#view.setSizeDecimals(this.#sizeDecimals);
    this.#view.setBars(this.#candles.bars, this.#market.decimals(this.#row));
  }

  setInterval(seconds: number): void {
    if (!isInterval(seconds)) return;
    this.#intervalS = seconds;
    this.#checkInterval(String(seconds));
    remember(`interval${this.#suffix}`, seconds);
    this.#start();
  }

  /**
   * Requests history again: after a gap in the live events, such as a lost connection or a hidden page. After a restart
   * the server has the instruments of a publisher only when that has reconnected.
   */
  reload(): void {
    this.#stopLoading();
    this.#retries = 0;
    this.#awaitsDefinition = this.#row >= 0 && !this.#market.isDefined(this.#row);
    if (this.#row >= 0 && !this.#awaitsDefinition) this.#loadAll();
  }

  #loadAll(): void {
    void this.#load(HISTORY_BARS, (history) => this.#join(history));
  }

  /** Adds the events of a frame; {@link Chart.draw} shows them. */
  take(frame: Frame): void {
    if (this.#row < 0) return;
    const { client } = this.#market;
    const { trades } = frame;
    for (let at = 0; at < trades.length; at++) {
      if (trades.row[at] !== this.#row) continue;
      const px = client.price(this.#row, trades.px[at] ?? NaN);
      const sz = client.size(this.#row, trades.sz[at] ?? NaN);
      this.#changed.add(this.#candles.trade((trades.recvMs[at] ?? 0) / 1000, px, sz));
    }
    const changedAt = frame.changed.indexOf(this.#row);
    if (changedAt >= 0 && ((frame.what[changedAt] ?? 0) & CHANGED.quote) !== 0) this.#takeQuote();
  }

  /** Draws the changed bars. */
  draw(): void {
    if (this.#changed.size === 0) return;
    const bars = [...this.#changed].sort((a, b) => a.time - b.time);
    this.#changed.clear();
    for (const bar of bars) this.#view.update(bar);
    this.#view.keep(this.#candles.bars);
    this.#showNote(this.#loading !== null);
    const newest = this.#candles.newest?.time ?? NaN;
    // A load that is under way has this bar as well, and another load would abort it.
    if (this.#loading !== null || !(newest > this.#joint)) return;
    void this.#load(8, (history) => this.#correct(history));
  }

  /** The theme has changed. */
  restyle(): void {
    this.#view.restyle();
  }

  get #sizeDecimals(): number {
    return Math.max(0, -(this.#market.client.instruments.szExp[this.#row] ?? 0));
  }

  #takeQuote(): void {
    const { client } = this.#market;
    const { bidPx, askPx, recvMs } = client.quotes;
    const bid = client.price(this.#row, bidPx[this.#row] ?? NaN);
    const ask = client.price(this.#row, askPx[this.#row] ?? NaN);
    const at = recvMs[this.#row] ?? 0;
    if (at > 0) this.#changed.add(this.#candles.quote(at / 1000, bid, ask));
  }

  #start(): void {
    this.#candles = new Candles(this.#intervalS);
    this.#changed.clear();
    this.#joint = NaN;
    this.#older.reset();
    this.#view.setSizeDecimals(this.#sizeDecimals);
    this.#view.restart(this.#intervalS, this.#row < 0 ? 2 : this.#market.decimals(this.#row));
    // The present quote is the first live one: otherwise an instrument without changes would have no band.
    if (this.#row >= 0) this.#takeQuote();
    this.reload();
    if (this.#loading === null) this.#showNote(false);
  }

  /** Requests history, and passes it to `use` unless another load has replaced this one. */
  async #load(limit: number, use: (history: Bar[]) => void): Promise<void> {
    this.#stopLoading();
    const loading = new AbortController();
    this.#loading = loading;
    this.#joint = NaN;
    if (this.#candles.bars.length < 2) this.#showNote(true);
    let note = "";
    let isMissing = false;
    try {
      const symbol = encodeURIComponent(this.#market.symbol(this.#row));
      const url = `/v1/bars/${symbol}?interval_s=${this.#intervalS}&limit=${limit}`;
      const response = await this.#market.client.fetch(url, { signal: loading.signal });
      if (response.ok) use(barsOf((await response.json()) as BarsAnswer));
      else note = "history is not available";
      isMissing = response.status === 404;
    } catch {
      note = "history could not be loaded";
    }
    // Another load has replaced this one, and shows the note.
    if (this.#loading !== loading) return;
    this.#loading = null;
    if (isMissing) this.#loadLater();
    this.#view.note = note;
    this.#showNote(false);
  }

  #stopLoading(): void {
    clearTimeout(this.#retry);
    this.#loading?.abort();
    this.#loading = null;
  }

  /** The server does not have the instrument: requests it again after a delay, and when it is defined. */
  #loadLater(): void {
    this.#awaitsDefinition = true;
    const after = RETRIES_MS[this.#retries];
    this.#retries += 1;
    if (after !== undefined && this.#market.isDefined(this.#row)) {
      this.#retry = window.setTimeout(() => this.#loadAll(), after);
    }
  }

  #join(history: Bar[]): void {
    this.#awaitsDefinition = false;
    this.#candles.join(history);
    this.#joint = this.#candles.newest?.time ?? NaN;
    this.#changed.clear();
    this.#view.setBars(this.#candles.bars, this.#market.decimals(this.#row));
  }

  /** The user has scrolled near the oldest bar. While the newest bars are loading, the view has not come to rest. */
  #loadOlder(): void {
    const [candles, first] = [this.#candles, this.#candles.bars[0]];
    if (first === undefined || candles.isFull || this.#loading !== null || Number.isNaN(this.#joint)) return;
    void this.#older.load(this.#market.symbol(this.#row), this.#intervalS, first.time, (older) => {
      const added = candles.prepend(older);
      // Bars with changes that are not drawn yet are among those that are set.
      if (added > 0) this.#view.setBars(candles.bars, this.#market.decimals(this.#row));
      this.#showNote(false);
      return added;
    });
  }

  #correct(history: Bar[]): void {
    this.#candles.correct(history);
    for (const bar of this.#candles.bars.slice(-history.length)) this.#changed.add(bar);
  }

  #showNote(loading: boolean): void {
    const { bars } = this.#candles;
    const empty = bars.length === 0;
    mark(this.#root, "bars", String(bars.length));
    mark(this.#root, "first", String(bars[0]?.time ?? ""));
    mark(this.#root, "last", String(bars.at(-1)?.time ?? ""));
    write(field(this.#root, "chart-note"), !empty ? "" : loading ? "Loading history …" : "No trades or quotes yet");
    this.#showZone();
  }

  #saveBars(): void {
    const decimals = this.#row < 0 ? 0 : this.#market.decimals(this.#row);
    const name = fileName([this.#market.symbol(this.#row), intervalText(this.#intervalS)], Date.now(), "csv");
    saveText(name, barsCsv(this.#view.barsInView, decimals, this.#sizeDecimals));
  }

  #savePicture(): void {
    const [symbol, interval] = [this.#market.symbol(this.#row), intervalText(this.#intervalS)];
    const title = `${symbol} · ${interval} · ${this.#view.times.text(Date.now() / 1000)}`;
    savePicture(fileName([symbol, interval], Date.now(), "png"), this.#view.picture(title));
  }

  #showScale(beyond: number, showsAll: boolean): void {
    const button = part(this.#root, "[data-action=beyond]");
    button.hidden = beyond === 0;
    write(button, beyondText(beyond));
    attribute(part(this.#root, "[data-action=show-all]"), "aria-pressed", String(showsAll));
    mark(this.#root, "beyond", beyond === 0 ? "" : String(beyond));
  }

  #showZone(): void {
    write(field(this.#root, "chart-zone"), this.#view.times.label);
  }
}

function isInterval(value: unknown): value is number {
  return isNumber(value) && INTERVALS_S.includes(value);
}
