/** Figures for a status bar: the counters of the stream side, and the latency and lag measured on the page side. */

import { NO_COUNTERS, nowMs, type Batch } from "./messages";
import type { Stats } from "./types";

/** Limits of the latency samples: their number and their age. */
const SAMPLES_MAX = 4096;
const AGE_MAX_MS = 10_000;

export class Figures {
  lagMs = 0;
  /** Trades and raw records that were dropped, on either side. */
  dropped = 0;
  #last = NO_COUNTERS;
  #before = NO_COUNTERS;
  #seconds = 1;
  #atMs = nowMs();
  #frames = 0;
  readonly #latencies: [ms: number, atMs: number][] = [];

  /** Takes the counters of a second and their time: a busy thread may get those of several seconds at once. */
  count({ counters, atMs }: { counters: typeof NO_COUNTERS; atMs: number }): void {
    this.#seconds = Math.max(0.001, (atMs - this.#atMs) / 1000);
    this.#atMs = atMs;
    this.#before = this.#last;
    this.#last = counters;
  }

  /** A batch is delivered with this frame. */
  shown({ dropped, oldestMs, sent }: Batch): void {
    const now = nowMs();
    this.#frames++;
    this.dropped += dropped;
    this.lagMs = oldestMs && Math.max(0, now - oldestMs);
    const { clockOffsetMs } = this.#last;
    for (const sentMs of sent) {
      // NaN until the server's clock is known: such a sample is not counted.
      const samples = this.#latencies.push([now + clockOffsetMs - sentMs, now + 0 * clockOffsetMs]);
      if (samples > SAMPLES_MAX) this.#latencies.shift();
    }
  }

  get stats(): Stats {
    const rate = (name: "messages" | "updates" | "conflated" | "bytes"): number =>
      Math.round((this.#last[name] - this.#before[name]) / this.#seconds);
    const now = nowMs();
    const recent = this.#latencies.filter(([, atMs]) => now - atMs < AGE_MAX_MS);
    const sorted = Float64Array.from(recent, ([ms]) => ms).sort();
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
