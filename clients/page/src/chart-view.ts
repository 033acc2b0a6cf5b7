/** The view of the chart: the library's series, their colours, the axes and the legend. It shows bars only. */

import {
  CandlestickSeries,
  ColorType,
  CrosshairMode,
  HistogramSeries,
  TickMarkType,
  createChart,
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
import { colour, faded, write } from "./dom.ts";
import { clockText, floatText, priceText, volumeText } from "./format.ts";

/** Bars in view when a chart is opened. */
const OPENING_BARS = 110;
/** Empty space right of the newest bar, in bars. */
const RIGHT_BARS = 3;

export class ChartView {
  /** A text before the legend. */
  note = "";
  readonly #legend: HTMLElement;
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

  constructor(container: HTMLElement, legend: HTMLElement, toNow: HTMLElement) {
    this.#legend = legend;
    this.#chart = createChart(container, OPTIONS);
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
    this.restyle();
    const timeScale = this.#chart.timeScale();
    toNow.addEventListener("click", () => timeScale.scrollToPosition(RIGHT_BARS, false));
    timeScale.subscribeVisibleLogicalRangeChange(() => (toNow.hidden = timeScale.scrollPosition() > -2));
    this.#chart.subscribeCrosshairMove(({ time }) => {
      this.#hovered = typeof time === "number" ? time : -1;
      this.#showLegend();
    });
    new ResizeObserver(([entry]) => {
      const { width, height } = entry?.contentRect ?? { width: 0, height: 0 };
      if (width > 0 && height > 0) this.#chart.resize(Math.floor(width), Math.floor(height));
    }).observe(container);
  }

  /** Empties the chart for another instrument or interval. */
  restart(intervalS: number, decimals: number): void {
    this.note = "";
    this.#chart.applyOptions({ timeScale: { secondsVisible: intervalS < 60 } });
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
    this.#band.setData(bars.map((bar) => bandOf(bar, this.#unit)));
    this.#volume.setData(bars.map((bar) => this.#volumeOf(bar)));
    this.#candles.setData(bars.map((bar) => candleOf(bar, this.#unit)));
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
    this.#band.update(bandOf(bar, this.#unit), past);
    this.#volume.update(this.#volumeOf(bar), past);
    this.#candles.update(candleOf(bar, this.#unit), past);
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
    this.#band.applyOptions({ visible });
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

  #volumeOf(bar: Bar): { time: UTCTimestamp; value?: number; color?: string } {
    const time = bar.time as UTCTimestamp;
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

function candleOf(bar: Bar, unit: number): BarData<UTCTimestamp> {
  const time = bar.time as UTCTimestamp;
  const [open, high, low, close] = [bar.open * unit, bar.high * unit, bar.low * unit, bar.close * unit];
  // A bar without a trade is only a point of the time axis.
  return (Number.isNaN(open) ? { time } : { time, open, high, low, close }) as BarData<UTCTimestamp>;
}

function bandOf(bar: Bar, unit: number): BandData | WhitespaceData<Time> {
  const time = bar.time as UTCTimestamp;
  return Number.isNaN(bar.bid + bar.ask) ? { time } : { time, bid: bar.bid * unit, ask: bar.ask * unit };
}

const OPTIONS = {
  autoSize: false,
  // The library's logo adds a style element, which the page's policy refuses; the page has the required link itself.
  layout: { attributionLogo: false, fontFamily: "system-ui, sans-serif", fontSize: 11 },
  crosshair: { mode: CrosshairMode.Normal },
  rightPriceScale: { minimumWidth: 72 },
  timeScale: { timeVisible: true, rightOffset: RIGHT_BARS, minBarSpacing: 1, tickMarkFormatter: tickMark },
  localization: { timeFormatter: (time: Time) => dayText(time) + clockText(Number(time) * 1000) },
};

/** Texts of the time axis, in local time. */
function tickMark(time: Time, type: TickMarkType): string {
  const at = new Date(Number(time) * 1000);
  if (type === TickMarkType.TimeWithSeconds) return clockText(at.getTime());
  if (type === TickMarkType.Time) return clockText(at.getTime()).slice(0, 5);
  return dayText(time);
}

function dayText(time: Time): string {
  return `${new Date(Number(time) * 1000).toLocaleDateString("en", { day: "numeric", month: "short" })} `;
}
