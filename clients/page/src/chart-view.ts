/** The view of the chart: the library's series, their colours, the axes and the legend. It shows bars only. */

import {
  CandlestickSeries,
  ColorType,
  CrosshairMode,
  HistogramSeries,
  createChart,
  type AutoscaleInfo,
  type BarData,
  type DeepPartial,
  LineStyle,
  type IChartApi,
  type IPriceLine,
  type ISeriesApi,
  type Time,
  type UTCTimestamp,
  type WhitespaceData,
} from "lightweight-charts";
import { type BandData, type BandOptions, BandView } from "./band.ts";
import { type Bar, drawnAs, rangeAfterDrop, wholeDigits } from "./candles.ts";
import { titled } from "./chart-files.ts";
import { BeyondMarks, ChartScale } from "./chart-scale.ts";
import { ChartTimes } from "./chart-times.ts";
import { colour, faded, write } from "./dom.ts";
import { floatText, priceText, volumeText } from "./format.ts";
import type { Zone } from "./zones.ts";

/** Bars in view when a chart is opened. */
const OPENING_BARS = 110;
/** Empty space right of the newest bar, in bars. */
const RIGHT_BARS = 3;
/** Older bars are requested when fewer than these are left of the view. */
const SPARE_BARS = 40;

export interface ChartViewHandlers {
  /** The view is near the oldest bar. */
  nearOldest(): void;
  /** So many bars in view leave the scale; every price is shown. */
  scaled(beyond: number, showsAll: boolean): void;
}

export class ChartView {
  /** A text before the legend. */
  note = "";
  readonly times = new ChartTimes();
  readonly #legend: HTMLElement;
  readonly #handlers: ChartViewHandlers;
  readonly #scale: ChartScale;
  readonly #marks: BeyondMarks;
  readonly #chart: IChartApi;
  readonly #candles: ISeriesApi<"Candlestick">;
  readonly #last: IPriceLine;
  readonly #volume: ISeriesApi<"Histogram">;
  readonly #band: ISeriesApi<"Custom", Time, BandData | WhitespaceData<Time>, BandOptions, DeepPartial<BandOptions>>;
  #bars = new Map<number, Bar>();
  #newest = -1;
  /** The first bars have been shown at the opening width. */
  #isOpened = false;
  #hovered = -1;
  #decimals = 2;
  /** What drawn prices are multiplied by, and the digits that they may have for that, see {@link drawnAs}. */
  #unit = 1;
  #wholeDigits = -Infinity;
  #sizeDecimals = 0;
  #up = "";
  #down = "";
  #upFaded = "";
  #downFaded = "";

  constructor(container: HTMLElement, legend: HTMLElement, toNow: HTMLElement, handlers: ChartViewHandlers) {
    this.#legend = legend;
    this.#handlers = handlers;
    this.#chart = createChart(container, OPTIONS);
    this.#chart.applyOptions({
      timeScale: { tickMarkFormatter: this.times.tickMark },
      localization: { timeFormatter: this.times.crosshair },
    });
    const scaled = (beyond: number): void => handlers.scaled(beyond, this.#scale.showsAll);
    this.#scale = new ChartScale(() => this.barsInView, scaled);
    // The band is drawn first, under the candles.
    this.#band = this.#chart.addCustomSeries<BandData, BandOptions>(new BandView(), {
      priceLineVisible: false,
      lastValueVisible: false,
    });
    this.#volume = this.#chart.addSeries(HistogramSeries, {
      priceScaleId: "volume",
      priceFormat: { type: "volume" },
      priceLineVisible: false,
      lastValueVisible: false,
    });
    this.#volume.priceScale().applyOptions({ scaleMargins: { top: 0.84, bottom: 0 } });
    this.#candles = this.#chart.addSeries(CandlestickSeries, { priceLineVisible: false, lastValueVisible: false });
    // Not the library's price line: it has the colour of the candle's body, and rising candles are hollow.
    this.#last = this.#candles.createPriceLine({ price: 0, lineVisible: false, axisLabelVisible: false, title: "" });
    this.#candles.priceScale().applyOptions({ scaleMargins: { top: 0.08, bottom: 0.2 } });
    const autoscaleInfoProvider = (original: () => AutoscaleInfo | null): AutoscaleInfo | null =>
      this.#scale.info(original(), this.#unit);
    for (const series of [this.#candles, this.#band]) series.applyOptions({ autoscaleInfoProvider });
    this.#marks = new BeyondMarks(this.#chart, this.#scale, (unixS) => this.times.drawn(unixS));
    this.#candles.attachPrimitive(this.#marks);
    this.restyle();
    const timeScale = this.#chart.timeScale();
    toNow.addEventListener("click", () => timeScale.scrollToPosition(RIGHT_BARS, false));
    timeScale.subscribeVisibleLogicalRangeChange((range) => {
      toNow.hidden = timeScale.scrollPosition() > -2;
      if (range !== null && range.from < SPARE_BARS && this.#bars.size > 0 && this.#isOpened) handlers.nearOldest();
    });
    this.#chart.subscribeDblClick(() => this.showAll(!this.#scale.showsAll));
    this.#chart.subscribeCrosshairMove(({ time }) => {
      this.#hovered = time === undefined ? -1 : this.times.real(time);
      this.#showLegend();
    });
    container.addEventListener("keydown", (event) => this.#onKey(event));
    new ResizeObserver(([entry]) => {
      const { width, height } = entry?.contentRect ?? { width: 0, height: 0 };
      if (width > 0 && height > 0) this.#chart.resize(Math.floor(width), Math.floor(height));
    }).observe(container);
  }

  /** Moves and zooms the view by keys. */
  #onKey(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const timeScale = this.#chart.timeScale();
    const range = timeScale.getVisibleLogicalRange();
    if (range === null) return;
    const width = range.to - range.from;
    const steps = { ArrowLeft: -width / 10, ArrowRight: width / 10, PageUp: -width, PageDown: width };
    const step = { ...steps, Home: -range.from }[event.key];
    const zoom = { "+": 0.8, "=": 0.8, "-": 1.25 }[event.key];
    if (step !== undefined) timeScale.setVisibleLogicalRange({ from: range.from + step, to: range.to + step });
    else if (zoom !== undefined) timeScale.setVisibleLogicalRange({ from: range.to - width * zoom, to: range.to });
    else if (event.key === "End") timeScale.scrollToPosition(RIGHT_BARS, false);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Empties the chart for another instrument or interval. */
  restart(intervalS: number, decimals: number): void {
    this.note = "";
    this.times.intervalS = intervalS;
    this.#chart.applyOptions({ timeScale: { secondsVisible: intervalS < 60, timeVisible: intervalS < 86_400 } });
    this.#scale.showsAll = false;
    this.#handlers.scaled(0, false);
    this.#candles.priceScale().applyOptions({ autoScale: true });
    this.setBars([], decimals);
    this.#isOpened = false;
  }

  /** The most decimals of a volume. */
  setSizeDecimals(decimals: number): void {
    this.#sizeDecimals = decimals;
  }

  /** Replaces all bars, oldest first. Keeps the view if it shows older bars or is zoomed. */
  setBars(bars: readonly Bar[], decimals: number): void {
    const timeScale = this.#chart.timeScale();
    const isAtNow = timeScale.scrollPosition() > -2;
    this.#wholeDigits = Math.max(-Infinity, ...bars.map(wholeDigits));
    this.#setDecimals(decimals);
    this.#bars = new Map(bars.map((bar) => [bar.time, bar]));
    this.#newest = bars.at(-1)?.time ?? -1;
    this.times.align(bars.at(-1)?.time);
    this.#band.setData(bars.map((bar) => this.#bandOf(bar)));
    this.#volume.setData(bars.map((bar) => this.#volumeOf(bar)));
    this.#candles.setData(bars.map((bar) => this.#candleOf(bar)));
    if (!this.#isOpened) this.#showOpening(bars.length);
    else if (isAtNow) timeScale.scrollToPosition(RIGHT_BARS, false);
    this.#isOpened = true;
    this.#showLast(bars.findLast((bar) => !Number.isNaN(bar.close)));
    this.#showLegend();
  }

  /** Shows a new or changed bar. */
  update(bar: Bar): void {
    const past = bar.time < this.#newest;
    const isLarge = wholeDigits(bar) > this.#wholeDigits;
    if (isLarge || (past && !this.#bars.has(bar.time))) return this.#insert(bar);
    this.#bars.set(bar.time, bar);
    this.#newest = Math.max(this.#newest, bar.time);
    this.#band.update(this.#bandOf(bar), past);
    this.#volume.update(this.#volumeOf(bar), past);
    this.#candles.update(this.#candleOf(bar), past);
    if (!this.#isOpened && this.#bars.size === 2) this.#showOpening(2);
    if (!past && !Number.isNaN(bar.close)) this.#showLast(bar);
    if (this.#hovered < 0 || this.#hovered === bar.time) this.#showLegend();
  }

  /** Drops the oldest bars if the view has more than these; the library cannot drop bars itself. */
  keep(bars: readonly Bar[]): void {
    const dropped = this.#bars.size - bars.length;
    if (dropped <= 0) return;
    const timeScale = this.#chart.timeScale();
    // A view of the newest bar stays at the newest bar.
    const range = timeScale.scrollPosition() > -2 ? null : timeScale.getVisibleLogicalRange();
    this.setBars(bars, this.#decimals);
    if (range !== null) timeScale.setVisibleLogicalRange(rangeAfterDrop(range, dropped));
  }

  showBand(visible: boolean): void {
    this.#scale.hasBand = visible;
    this.#band.applyOptions({ visible });
  }

  /** Shows every price, or leaves outliers outside of the scale. */
  showAll(all: boolean): void {
    this.#scale.showsAll = all;
    // Also after the user has moved the scale.
    this.#candles.priceScale().applyOptions({ autoScale: true });
    this.#handlers.scaled(this.#scale.beyond.length, all);
  }

  get showsAll(): boolean {
    return this.#scale.showsAll;
  }

  /** The chart as it is drawn, under a line of text. */
  picture(title: string): HTMLCanvasElement {
    return titled(this.#chart.takeScreenshot(true), title, colour("panel"), colour("text"));
  }

  /** Shows the times in another zone. */
  setZone(zone: Zone): void {
    this.times.zone = zone;
    const range = this.#chart.timeScale().getVisibleLogicalRange();
    const isOpened = this.#isOpened;
    this.setBars([...this.#bars.values()], this.#decimals);
    this.#isOpened = isOpened;
    if (range !== null && isOpened) this.#chart.timeScale().setVisibleLogicalRange(range);
  }

  /** Reads the colours of the theme. Rising candles are hollow and falling ones filled, in any colour. */
  restyle(): void {
    const [up, down, panel, quiet] = [colour("up"), colour("down"), colour("panel"), colour("quiet")];
    const line = colour("line");
    [this.#up, this.#down] = [up, down];
    [this.#upFaded, this.#downFaded] = [faded(up, 0.35), faded(down, 0.35)];
    this.#chart.applyOptions({
      layout: { background: { type: ColorType.Solid, color: panel }, textColor: quiet },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      crosshair: {
        vertLine: { labelBackgroundColor: colour("edge") },
        horzLine: { labelBackgroundColor: colour("edge") },
      },
      timeScale: { borderColor: line },
      rightPriceScale: { borderColor: line },
    });
    this.#candles.applyOptions({
      upColor: panel,
      downColor: down,
      borderUpColor: up,
      borderDownColor: down,
      wickUpColor: up,
      wickDownColor: down,
    });
    this.#marks.color = colour("warn");
    this.#band.applyOptions({
      bidColor: faded(up, 0.55),
      askColor: faded(down, 0.55),
      fillColor: faded(quiet, 0.16),
    });
    const bars = [...this.#bars.values()];
    this.#volume.setData(bars.map((bar) => this.#volumeOf(bar)));
    this.#showLast(bars.findLast((bar) => !Number.isNaN(bar.close)));
  }

  /**
   * Sets all bars again: for a bar between others, because the library appends only in order, and for one with a price
   * that has more digits than all before. Rare.
   */
  #insert(bar: Bar): void {
    const bars = [...this.#bars.set(bar.time, bar).values()].sort((a, b) => a.time - b.time);
    // The opening width is that of the history, which may come later.
    const isOpened = this.#isOpened;
    const range = isOpened ? this.#chart.timeScale().getVisibleLogicalRange() : null;
    this.setBars(bars, this.#decimals);
    this.#isOpened = isOpened;
    if (range !== null) this.#chart.timeScale().setVisibleLogicalRange(range);
  }

  #showLast(bar: Bar | undefined): void {
    const visible = bar !== undefined;
    const tone = visible && bar.close < bar.open ? this.#down : this.#up;
    const price = (bar?.close ?? 0) * this.#unit;
    const lineStyle = LineStyle.Dotted;
    this.#last.applyOptions({
      price,
      color: tone,
      lineWidth: 1,
      lineStyle,
      lineVisible: visible,
      axisLabelVisible: visible,
    });
  }

  #setDecimals(decimals: number): void {
    const { unit, minMove } = drawnAs(decimals, this.#wholeDigits);
    this.#decimals = decimals;
    this.#unit = unit;
    const formatter = (px: number): string => priceText(floatText(px / unit, decimals));
    const format = { type: "custom" as const, formatter, minMove };
    this.#candles.applyOptions({ priceFormat: format });
    this.#band.applyOptions({ priceFormat: format });
  }

  /** Few bars are shown at the right with their usual width; many fill the view. */
  #showOpening(bars: number): void {
    const shown = Math.min(OPENING_BARS, Math.max(bars, 40));
    this.#chart.timeScale().setVisibleLogicalRange({ from: bars - shown, to: bars + RIGHT_BARS });
  }

  /** The bars in view. */
  get barsInView(): readonly Bar[] {
    const range = this.#chart.timeScale().getVisibleLogicalRange();
    if (range === null) return [];
    return [...this.#bars.values()].slice(Math.max(0, Math.floor(range.from)), Math.max(0, Math.ceil(range.to) + 1));
  }

  #candleOf(bar: Bar): BarData<UTCTimestamp> {
    const [time, unit] = [this.times.drawn(bar.time), this.#unit];
    const [open, high, low, close] = [bar.open * unit, bar.high * unit, bar.low * unit, bar.close * unit];
    // A bar without a trade is only a point of the time axis.
    return (Number.isNaN(open) ? { time } : { time, open, high, low, close }) as BarData<UTCTimestamp>;
  }

  #bandOf(bar: Bar): BandData | WhitespaceData<Time> {
    const time = this.times.drawn(bar.time);
    return Number.isNaN(bar.bid + bar.ask) ? { time } : { time, bid: bar.bid * this.#unit, ask: bar.ask * this.#unit };
  }

  #volumeOf(bar: Bar): { time: UTCTimestamp; value?: number; color?: string } {
    const time = this.times.drawn(bar.time);
    if (bar.volume === 0) return { time };
    return { time, value: bar.volume, color: bar.close < bar.open ? this.#downFaded : this.#upFaded };
  }

  #showLegend(): void {
    const bar = this.#bars.get(this.#hovered) ?? this.#bars.get(this.#newest);
    const text = bar === undefined ? "" : this.#legendOf(bar);
    write(this.#legend, [this.note, text].filter((words) => words !== "").join("   "));
  }

  #legendOf(bar: Bar): string {
    const px = (value: number): string => priceText(floatText(value, this.#decimals));
    if (Number.isNaN(bar.open)) return Number.isNaN(bar.bid + bar.ask) ? "" : `Bid ${px(bar.bid)}  Ask ${px(bar.ask)}`;
    const volume = volumeText(bar.volume, this.#sizeDecimals);
    return `O ${px(bar.open)}  H ${px(bar.high)}  L ${px(bar.low)}  C ${px(bar.close)}  V ${volume}`;
  }
}

const OPTIONS = {
  autoSize: false,
  // The library's logo adds a style element, which the page's policy refuses; the page has the required link itself.
  layout: { attributionLogo: false, fontFamily: "system-ui, sans-serif", fontSize: 11 },
  crosshair: { mode: CrosshairMode.Normal },
  rightPriceScale: { minimumWidth: 72 },
  timeScale: { timeVisible: true, rightOffset: RIGHT_BARS, minBarSpacing: 1 },
};
