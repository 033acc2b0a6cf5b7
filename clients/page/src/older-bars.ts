/**
 * Older bars of a chart, which are requested as its user scrolls to them: one request at a time, each for the bars
 * before the first that the chart has, until an answer has none.
 */

import { type Bar, type BarsAnswer, barsOf } from "./candles.ts";
import type { Market } from "./market.ts";

const OLDER_BARS = 1000;
/** After a failed request the next one waits. */
const PAUSE_MS = 5000;

export class OlderBars {
  readonly #market: Market;
  #loading: AbortController | null = null;
  /** The server has none before the chart's first bar. */
  #isOver = false;
  #pausedUntil = 0;

  constructor(market: Market) {
    this.#market = market;
  }

  /** Begins again, for another instrument or interval. */
  reset(): void {
    this.#loading?.abort();
    this.#loading = null;
    this.#isOver = false;
    this.#pausedUntil = 0;
  }

  /** Requests the bars before `to`, and passes them to `use`, which returns how many were new. */
  async load(symbol: string, intervalS: number, to: number, use: (older: Bar[]) => number): Promise<void> {
    if (this.#isOver || this.#loading !== null || performance.now() < this.#pausedUntil) return;
    const loading = new AbortController();
    this.#loading = loading;
    const query = `interval_s=${intervalS}&limit=${OLDER_BARS}&to=${to}`;
    try {
      const url = `/v1/bars/${encodeURIComponent(symbol)}?${query}`;
      const response = await this.#market.client.fetch(url, { signal: loading.signal });
      const answer = response.ok ? ((await response.json()) as BarsAnswer) : null;
      if (this.#loading !== loading) return;
      if (answer === null) this.#pause();
      // Bars before `since` may be incomplete, and yet be there: only an answer without bars is the end.
      else this.#isOver = use(barsOf(answer)) === 0;
    } catch {
      if (this.#loading === loading) this.#pause();
    }
    if (this.#loading === loading) this.#loading = null;
  }

  #pause(): void {
    this.#pausedUntil = performance.now() + PAUSE_MS;
  }
}
