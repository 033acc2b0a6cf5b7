/**
 * The price scale of a chart: without outliers, as `scale.ts` finds them, and with a mark at the edge for each bar that
 * leaves it; or with every price.
 */

import type { AutoscaleInfo, IChartApi, IPrimitivePaneView, ISeriesPrimitive, Time } from "lightweight-charts";
import type { Bar } from "./candles.ts";
import { robustRange } from "./scale.ts";

type RenderTarget = Parameters<NonNullable<ReturnType<IPrimitivePaneView["renderer"]>>["draw"]>[0];

export interface Beyond {
  readonly time: number;
  readonly side: "above" | "below";
}

export class ChartScale {
  /** Whether every price is shown. */
  showsAll = false;
  /** Whether bid and ask are drawn as well. */
  hasBand = true;
  #beyond: readonly Beyond[] = [];
  readonly #barsInView: () => readonly Bar[];
  readonly #changed: (beyond: number) => void;

  constructor(barsInView: () => readonly Bar[], changed: (beyond: number) => void) {
    this.#barsInView = barsInView;
    this.#changed = changed;
  }

  /** The bars in view that leave the scale. */
  get beyond(): readonly Beyond[] {
    return this.#beyond;
  }

  /** The range of a series for the library, in drawn prices: `unit` is what prices are multiplied by. */
  info(original: AutoscaleInfo | null, unit: number): AutoscaleInfo | null {
    if (original === null) return null;
    const bars = this.#barsInView();
    const lows = bars.map((bar) => least(bar.low, this.hasBand ? bar.bid : NaN));
    const highs = bars.map((bar) => -least(-bar.high, this.hasBand ? -bar.ask : NaN));
    const newest = bars.findLast((bar) => !Number.isNaN(bar.close))?.close ?? NaN;
    const range = this.showsAll ? null : robustRange(lows, highs, newest);
    const beyond: Beyond[] = [];
    if (range !== null) {
      bars.forEach(({ time }, at) => {
        if ((highs[at] ?? NaN) > range.high) beyond.push({ time, side: "above" });
        if ((lows[at] ?? NaN) < range.low) beyond.push({ time, side: "below" });
      });
    }
    this.#note(beyond);
    // Without outliers the library's own range is the same, and has the margins that it adds.
    if (range === null || beyond.length === 0) return original;
    return { ...original, priceRange: { minValue: range.low * unit, maxValue: range.high * unit } };
  }

  #note(beyond: readonly Beyond[]): void {
    const before = this.#beyond.length;
    this.#beyond = beyond;
    // The library is drawing: what follows from it is written after that.
    if (before !== beyond.length) queueMicrotask(() => this.#changed(this.#beyond.length));
  }
}

/** The lesser of two numbers, of which one may be missing. */
function least(one: number, other: number): number {
  return Number.isNaN(one) ? other : Number.isNaN(other) ? one : Math.min(one, other);
}

/** Triangles at the upper and lower edge of the chart, at the bars that leave its scale. */
export class BeyondMarks implements ISeriesPrimitive<Time> {
  color = "#888";
  readonly #chart: IChartApi;
  readonly #scale: ChartScale;
  readonly #drawn: (unixS: number) => Time;
  readonly #views: readonly IPrimitivePaneView[];

  constructor(chart: IChartApi, scale: ChartScale, drawn: (unixS: number) => Time) {
    this.#chart = chart;
    this.#scale = scale;
    this.#drawn = drawn;
    this.#views = [{ zOrder: () => "top", renderer: () => ({ draw: (target) => this.#draw(target) }) }];
  }

  paneViews(): readonly IPrimitivePaneView[] {
    return this.#views;
  }

  #draw(target: RenderTarget): void {
    const timeScale = this.#chart.timeScale();
    target.useMediaCoordinateSpace(({ context, mediaSize }) => {
      context.fillStyle = this.color;
      for (const { time, side } of this.#scale.beyond) {
        const x = timeScale.timeToCoordinate(this.#drawn(time));
        if (x === null) continue;
        const [tip, base] = side === "above" ? [2, 10] : [mediaSize.height - 2, mediaSize.height - 10];
        context.beginPath();
        context.moveTo(x, tip);
        context.lineTo(x - 6, base);
        context.lineTo(x + 6, base);
        context.fill();
      }
    });
  }
}
