/** A chart series that draws bid and ask as a band with thin lines as edges. */

import {
  customSeriesDefaultOptions,
  type CustomData,
  type CustomSeriesOptions,
  type CustomSeriesPricePlotValues,
  type CustomSeriesWhitespaceData,
  type ICustomSeriesPaneRenderer,
  type ICustomSeriesPaneView,
  type PaneRendererCustomData,
  type PriceToCoordinateConverter,
  type Time,
  type UTCTimestamp,
} from "lightweight-charts";

type RenderTarget = Parameters<ICustomSeriesPaneRenderer["draw"]>[0];

export interface BandData extends CustomData<Time> {
  time: UTCTimestamp;
  bid: number;
  ask: number;
}

export interface BandOptions extends CustomSeriesOptions {
  bidColor: string;
  askColor: string;
  fillColor: string;
}

interface Point {
  readonly x: number;
  readonly bid: number;
  readonly ask: number;
}

class BandRenderer implements ICustomSeriesPaneRenderer {
  #data: PaneRendererCustomData<Time, BandData> | null = null;
  #options: BandOptions | null = null;

  update(data: PaneRendererCustomData<Time, BandData>, options: BandOptions): void {
    this.#data = data;
    this.#options = options;
  }

  draw(target: RenderTarget, yOf: PriceToCoordinateConverter): void {
    const [data, options] = [this.#data, this.#options];
    if (data === null || options === null || data.visibleRange === null) return;
    const points = visiblePoints(data, yOf);
    if (points.length === 0) return;
    target.useMediaCoordinateSpace(({ context }) => {
      context.lineJoin = "round";
      context.fillStyle = options.fillColor;
      context.beginPath();
      for (const point of points) context.lineTo(point.x, point.ask);
      for (const point of points.toReversed()) context.lineTo(point.x, point.bid);
      context.fill();
      strokeEdge(context, points, "ask", options.askColor);
      strokeEdge(context, points, "bid", options.bidColor);
    });
  }
}

/** The points in view, and one more on each side, so that the band reaches the edges of the chart. */
function visiblePoints(data: PaneRendererCustomData<Time, BandData>, yOf: PriceToCoordinateConverter): Point[] {
  const { from, to } = data.visibleRange ?? { from: 0, to: 0 };
  const points: Point[] = [];
  for (const bar of data.bars.slice(Math.max(0, from - 1), to + 1)) {
    const { bid, ask } = bar.originalData;
    const [bidY, askY] = [yOf(bid), yOf(ask)];
    if (bidY !== null && askY !== null) points.push({ x: bar.x, bid: bidY, ask: askY });
  }
  return points;
}

function strokeEdge(context: CanvasRenderingContext2D, points: Point[], edge: "bid" | "ask", tone: string): void {
  context.strokeStyle = tone;
  context.lineWidth = 1;
  context.beginPath();
  for (const point of points) context.lineTo(point.x, point[edge]);
  context.stroke();
}

export class BandView implements ICustomSeriesPaneView<Time, BandData, BandOptions> {
  readonly #renderer = new BandRenderer();

  renderer(): ICustomSeriesPaneRenderer {
    return this.#renderer;
  }

  update(data: PaneRendererCustomData<Time, BandData>, options: BandOptions): void {
    this.#renderer.update(data, options);
  }

  priceValueBuilder(row: BandData): CustomSeriesPricePlotValues {
    return [row.ask, row.bid, (row.bid + row.ask) / 2];
  }

  isWhitespace(data: BandData | CustomSeriesWhitespaceData<Time>): data is CustomSeriesWhitespaceData<Time> {
    return (data as Partial<BandData>).bid === undefined;
  }

  defaultOptions(): BandOptions {
    return { ...customSeriesDefaultOptions, bidColor: "#888", askColor: "#888", fillColor: "rgba(128, 128, 128, 0.1)" };
  }
}
