/**
 * The minute before a sparkline's first sample, from the server's bars of one second: requested once for each row that
 * comes into view, a few at a time.
 */

import { type Bar, type BarsAnswer, barsOf } from "./candles.ts";
import type { Market } from "./market.ts";
import { POINTS } from "./spark.ts";

const REQUESTS_MAX = 3;
/** After a refused or failed request. */
const PAUSE_MS = 10_000;

export class SparkHistory {
  readonly #market: Market;
  readonly #use: (row: number, points: readonly number[]) => void;
  /** Rows that were asked for: those of instruments that the server has not, or may not show, as well. */
  readonly #asked = new Set<number>();
  #pending = 0;
  #pausedUntil = 0;

  constructor(market: Market, use: (row: number, points: readonly number[]) => void) {
    this.#market = market;
    this.#use = use;
  }

  /** Requests what the rows in view lack; called once a second. */
  request(rows: () => Iterable<number>): void {
    if (performance.now() < this.#pausedUntil) return;
    for (const row of rows()) {
      if (this.#pending >= REQUESTS_MAX) return;
      if (this.#asked.has(row) || !this.#market.isDefined(row)) continue;
      this.#asked.add(row);
      this.#pending += 1;
      void this.#load(row, rows);
    }
  }

  async #load(row: number, rows: () => Iterable<number>): Promise<void> {
    const symbol = this.#market.symbol(row);
    try {
      const url = `/v1/bars/${encodeURIComponent(symbol)}?interval_s=1&limit=${POINTS}`;
      const response = await this.#market.client.fetch(url);
      if (response.ok) {
        const bars = barsOf((await response.json()) as BarsAnswer);
        const now = Date.now() + (this.#market.client.stats.clockOffsetMs || 0);
        // The row may be another instrument's by now.
        if (this.#market.symbol(row) === symbol) this.#use(row, sparkPoints(bars, Math.floor(now / 1000)));
      } else if (response.status === 429 || response.status === 503) this.#pause(row);
    } catch {
      this.#pause(row);
    } finally {
      this.#pending -= 1;
    }
    this.request(rows);
  }

  /** The server is busy: the row is asked for again later. */
  #pause(row: number): void {
    this.#asked.delete(row);
    this.#pausedUntil = performance.now() + PAUSE_MS;
  }
}

/**
 * The closes of the seconds up to `now`, oldest first: a second without a trade has the close before it. Where the
 * clocks differ, the newest bar is the present.
 */
export function sparkPoints(bars: readonly Bar[], now: number): number[] {
  const traded = bars.filter(({ close }) => !Number.isNaN(close));
  const end = Math.max(now, traded.at(-1)?.time ?? now);
  const points: number[] = [];
  let at = 0;
  let close = NaN;
  for (let second = end - POINTS + 1; second <= end; second++) {
    for (; at < traded.length && (traded[at]?.time ?? 0) <= second; at++) close = traded[at]?.close ?? NaN;
    if (!Number.isNaN(close)) points.push(close);
  }
  return points;
}
