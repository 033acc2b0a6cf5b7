/**
 * Series for uPlot: columns of an instrument over time, with a point for each frame in which it has changed.
 *
 * What always holds: the columns are bounded, and nothing is allocated per point. Each column is a view that slides
 * along an array; uPlot reads it and does not keep it.
 */

import { CLIENT, count, having, oneOf, SIGNAL, SYMBOL, verify, verifyAll, type Rule } from "../check";
import type { Client } from "../types";

/** The prices that can be drawn. */
export type Field = "bid" | "ask" | "last";

/** The used part of a chart. */
export interface Chart {
  setData(data: any, resetScales?: boolean): void;
}

export interface SeriesOptions {
  symbol: string;
  /** The series, in the chart's order. Default bid and ask. */
  fields?: readonly Field[];
  /** The most points, up to 10,000,000. Default 2000. */
  points?: number;
  signal?: AbortSignal;
}

/** Columns for a chart: x in Unix seconds, then the fields. */
export type SeriesData = Float64Array[];

/** A sliding window of points. */
export class SlidingColumns {
  readonly #columns: Float64Array[];
  #start = 0;
  #end = 0;

  constructor(
    columns: number,
    readonly points: number,
  ) {
    // Arrays of twice the length: the window is moved back to the start once per `points` points.
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

  /** The window of each column, valid until the next point. */
  views(): SeriesData {
    return this.#columns.map((column) => column.subarray(this.#start, this.#end));
  }
}

const LIST: Rule = [(fields) => Array.isArray(fields) && fields.length, "a list of bid, ask, last"];
const OPTIONS = { symbol: SYMBOL, fields: LIST, points: count(1, 10_000_000), signal: SIGNAL };

/** Draws an instrument until the returned function, or the signal, ends it. */
export function followSeries(client: Client, chart: Chart, options: SeriesOptions): () => void {
  verify("client", client, CLIENT);
  verify("chart", chart, having("setData"));
  verifyAll("options", options, OPTIONS);
  const { symbol, fields = ["bid", "ask"], points = 2000, signal } = options;
  verify("symbol", symbol, SYMBOL);
  for (const field of fields) verify("fields", field, oneOf("bid", "ask", "last"));
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
