/** The chart of rates in the operator's view: three lines over the last minutes. */

import {
  ColorType,
  LineSeries,
  LineStyle,
  createChart,
  type IChartApi,
  type ISeriesApi,
  type UTCTimestamp,
} from "lightweight-charts";
import { colour } from "./dom.ts";
import { clockText, compactText, localZoneText } from "./format.ts";
import { Samples, type Timed } from "./samples.ts";

const LINES = ["in", "out", "sends"] as const;
export type Sample = Record<(typeof LINES)[number], number>;

export class RateChart {
  readonly #chart: IChartApi;
  readonly #lines: Record<keyof Sample, ISeriesApi<"Line">>;
  readonly #samples = new Samples<Sample>();

  constructor(container: HTMLElement) {
    this.#chart = createChart(container, {
      layout: { attributionLogo: false, fontFamily: "system-ui, sans-serif", fontSize: 11 },
      handleScroll: false,
      handleScale: false,
      rightPriceScale: { minimumWidth: 64, scaleMargins: { top: 0.12, bottom: 0.06 } },
      timeScale: {
        timeVisible: true,
        secondsVisible: true,
        tickMarkFormatter: (time: unknown) => clockText(Number(time) * 1000),
      },
      localization: { timeFormatter: zonedText, priceFormatter: compactText },
    });
    // Lines differ in their dashes as well, not in their colours alone.
    const line = (lineStyle: LineStyle): ISeriesApi<"Line"> =>
      this.#chart.addSeries(LineSeries, { lineStyle, lineWidth: 2, priceLineVisible: false });
    this.#lines = { in: line(LineStyle.Solid), out: line(LineStyle.Dashed), sends: line(LineStyle.Dotted) };
    this.restyle();
    new ResizeObserver(([entry]) => {
      const { width, height } = entry?.contentRect ?? { width: 0, height: 0 };
      if (width === 0 || height === 0) return;
      this.#chart.resize(Math.floor(width), Math.floor(height));
      this.#chart.timeScale().fitContent();
    }).observe(container);
  }

  add(unixMs: number, sample: Sample): void {
    const change = this.#samples.add(unixMs, sample);
    if (change === "skipped") return;
    const { points } = this.#samples;
    for (const name of LINES) {
      if (change === "renewed") this.#lines[name].setData(pointsOf(points, name));
      else for (const point of pointsOf(points.slice(-1), name)) this.#lines[name].update(point);
    }
    this.#chart.timeScale().fitContent();
  }

  restyle(): void {
    const [line, quiet] = [colour("line"), colour("quiet")];
    this.#chart.applyOptions({
      layout: { background: { type: ColorType.Solid, color: colour("panel") }, textColor: quiet },
      grid: { vertLines: { visible: false }, horzLines: { color: line } },
      timeScale: { borderColor: line },
      rightPriceScale: { borderColor: line },
    });
    this.#lines.in.applyOptions({ color: colour("up") });
    this.#lines.out.applyOptions({ color: colour("down") });
    this.#lines.sends.applyOptions({ color: quiet });
  }
}

/** The points of a line, without unknown rates. */
function pointsOf(points: readonly Timed<Sample>[], name: keyof Sample): { time: UTCTimestamp; value: number }[] {
  return points
    .filter(({ value }) => Number.isFinite(value[name]))
    .map(({ time, value }) => ({ time: time as UTCTimestamp, value: value[name] }));
}

/** The time of the crosshair, with its zone. */
function zonedText(time: unknown): string {
  const unixMs = Number(time) * 1000;
  return `${clockText(unixMs)} ${localZoneText(unixMs)}`;
}
