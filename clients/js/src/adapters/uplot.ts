/**
 * Series for uPlot: columns of an instrument over time, a point for each frame in which it has changed.
 *
 * What always holds: the columns are bounded, and nothing is allocated per point. They are views of one array each,
 * through which the window slides; uPlot reads them and does not keep them.
 */

import type { Client } from "../types";

/** What can be drawn. */
export type Field = "bid" | "ask" | "last";

/** What is used of a chart. `redraw` is uPlot's own second argument, resetting the scales. */
export interface Chart {
  setData(data: any, resetScales?: boolean): void;
}

export interface SeriesOptions {
  symbol: string;
  /** The series after the x values, in this order. Default bid and ask. */
  fields?: readonly Field[];
  /** Points at most. Default 2000. */
  points?: number;
  signal?: AbortSignal;
}

/** Columns for a chart: x in Unix seconds, then the fields. */
export type SeriesData = Float64Array[];

/** A window of points that slides. */
export class SlidingColumns {
  readonly #columns: Float64Array[];
  #start = 0;
  #end = 0;

  constructor(
    columns: number,
    readonly points: number,
  ) {
    // Twice the room, so that the window moves back only once for each `points` of them.
    this.#columns = Array.from({ length: columns }, () => new Float64Array(points * 2));
  }

  get length(): number {
    return this.#end - this.#start;
  }

  push(values: readonly number[]): void {
    if (this.#end === this.points * 2) {
      for (const column of this.#columns) column.copyWithin(0, this.#start + 1);
      this.#end -= this.#start + 1;
      this.#start = 0;
    }
    this.#columns.forEach((column, index) => (column[this.#end] = values[index]));
    this.#end++;
    this.#start = Math.max(this.#start, this.#end - this.points);
  }

  /** The window of each column; valid until the next point. */
  views(): SeriesData {
    return this.#columns.map((column) => column.subarray(this.#start, this.#end));
  }
}

/** Draws an instrument until the returned function, or the signal, ends it. */
export function followSeries(client: Client, chart: Chart, options: SeriesOptions): () => void {
  const { symbol, fields = ["bid", "ask"], points = 2000, signal } = options;
  const own = new AbortController();
  const end = (): void => own.abort();
  signal?.addEventListener("abort", end, { signal: own.signal });
  if (signal?.aborted === true) end();
  const columns = new SlidingColumns(fields.length + 1, points);
  const channels = fields.includes("last") ? (["quote", "trade"] as const) : (["quote"] as const);
  client.subscribe({ symbols: symbol, channels, signal: own.signal });
  const draw = (row: number): void => {
    const point = fields.map((field) => client.price(row, mantissaOf(client, row, field)));
    if (point.every(Number.isNaN)) return;
    columns.push([Date.now() / 1000, ...point]);
    chart.setData(columns.views());
  };
  client.onFrame(
    ({ changed }) => {
      const row = client.instruments.row(symbol);
      if (row >= 0 && changed.includes(row)) draw(row);
    },
    { signal: own.signal },
  );
  return end;
}

function mantissaOf(client: Client, row: number, field: Field): number {
  if (field === "last") return client.lastTrades.px[row];
  return field === "bid" ? client.quotes.bidPx[row] : client.quotes.askPx[row];
}
