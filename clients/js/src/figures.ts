/** Figures for a status bar: counters of the stream's side, and what only the page's side can measure. */

import { NO_COUNTERS, nowMs, type Batch } from "./messages";
import type { Stats } from "./types";

/** Samples of the latency: the newest so many, as far as they are young enough. */
const SAMPLES = 4096;
const YOUNG_MS = 10_000;

export class Figures {
  lagMs = 0;
  /** Trades and raw records that were let go, here or on the stream's side. */
  dropped = 0;
  #last = NO_COUNTERS;
  #before = NO_COUNTERS;
  #seconds = 1;
  #atMs = nowMs();
  #frames = 0;
  /** Latencies, and when each was found. */
  readonly #found: [ms: number, atMs: number][] = [];

  /** The counters of another second, and when they were taken: several may come at once to a thread that was busy. */
  count({ counters, atMs }: { counters: typeof NO_COUNTERS; atMs: number }): void {
    this.#seconds = Math.max(0.001, (atMs - this.#atMs) / 1000);
    this.#atMs = atMs;
    this.#before = this.#last;
    this.#last = counters;
  }

  /** A batch is on the screen with this frame. */
  shown({ dropped, oldestMs, sent }: Batch): void {
    const now = nowMs();
    this.#frames++;
    this.dropped += dropped;
    this.lagMs = oldestMs && Math.max(0, now - oldestMs);
    const { clockOffsetMs } = this.#last;
    for (const sentMs of sent) {
      // Until the server's clock is known it is NaN, and does not count.
      if (this.#found.push([now + clockOffsetMs - sentMs, now + 0 * clockOffsetMs]) > SAMPLES) this.#found.shift();
    }
  }

  get stats(): Stats {
    const rate = (name: "messages" | "updates" | "conflated" | "bytes"): number =>
      Math.round((this.#last[name] - this.#before[name]) / this.#seconds);
    const now = nowMs();
    const young = this.#found.filter(([, atMs]) => now - atMs < YOUNG_MS);
    const sorted = Float64Array.from(young, ([ms]) => ms).sort();
    const quantile = (part: number): number => sorted[Math.ceil(sorted.length * part) - 1] ?? NaN;
    return {
      ...this.#last,
      latencyP50Ms: quantile(0.5),
      latencyP99Ms: quantile(0.99),
      lagMs: this.lagMs,
      messagesPerSecond: rate("messages"),
      updatesPerSecond: rate("updates"),
      conflatedPerSecond: rate("conflated"),
      bytesPerSecond: rate("bytes"),
      tradesDropped: this.dropped,
      frames: this.#frames,
    };
  }
}
