/** Figures for a status bar: counters of the stream's side, and what only the page's side can measure. */

import { Latency } from "./latency";
import { NO_COUNTERS, nowMs, type Batch } from "./messages";
import type { Stats } from "./types";

export class Figures {
  lagMs = 0;
  #last = NO_COUNTERS;
  #before = NO_COUNTERS;
  #seconds = 1;
  #atMs = 0;
  #frames = 0;
  #dropped = 0;
  readonly #latency = new Latency();

  /** The counters of another second. */
  count(counters: typeof NO_COUNTERS): void {
    const now = nowMs();
    this.#seconds = this.#atMs ? Math.max(0.001, (now - this.#atMs) / 1000) : 1;
    this.#atMs = now;
    this.#before = this.#last;
    this.#last = counters;
  }

  /** A batch is on the screen with this frame. */
  shown({ dropped, oldestMs, sent, sentLength }: Batch): void {
    const now = nowMs();
    this.#frames++;
    this.#dropped += dropped;
    this.lagMs = oldestMs && Math.max(0, now - oldestMs);
    const { clockOffsetMs } = this.#last;
    for (let index = 0; index < sentLength; index++) this.#latency.add(now + clockOffsetMs - sent[index], now);
  }

  get stats(): Stats {
    const rate = (name: "messages" | "updates" | "conflated" | "bytes"): number =>
      Math.round((this.#last[name] - this.#before[name]) / this.#seconds);
    return {
      ...this.#last,
      latencyP50Ms: this.#latency.quantile(0.5),
      latencyP99Ms: this.#latency.quantile(0.99),
      lagMs: this.lagMs,
      messagesPerSecond: rate("messages"),
      updatesPerSecond: rate("updates"),
      conflatedPerSecond: rate("conflated"),
      bytesPerSecond: rate("bytes"),
      tradesDropped: this.#dropped,
      frames: this.#frames,
    };
  }
}
