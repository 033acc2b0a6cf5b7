/** Figures for a status bar: counters of the stream's side, and what only the page's side can measure. */

import type { Latency } from "./latency";
import { NO_COUNTERS, nowMs, type Batch, type Counters } from "./messages";
import type { Stats } from "./types";

export class Figures {
  #last = NO_COUNTERS;
  #before = NO_COUNTERS;
  #seconds = 1;
  #atMs = 0;
  lagMs = 0;
  frames = 0;
  dropped = 0;

  /** The counters of another second. */
  count(counters: Counters): void {
    const now = nowMs();
    this.#seconds = this.#atMs === 0 ? 1 : Math.max(0.001, (now - this.#atMs) / 1000);
    this.#atMs = now;
    this.#before = this.#last;
    this.#last = counters;
  }

  /** A batch is on the screen with this frame. */
  shown(batch: Batch, latency: Latency): void {
    const now = nowMs();
    this.frames++;
    this.dropped += batch.dropped;
    this.lagMs = batch.oldestMs > 0 ? Math.max(0, now - batch.oldestMs) : 0;
    const offset = this.#last.clockOffsetMs;
    if (offset !== offset) return;
    for (let index = 0; index < batch.sentLength; index++) latency.add(now + offset - batch.sent[index], now);
  }

  stats(latency: Latency): Stats {
    const [last, before] = [this.#last, this.#before];
    const rate = (name: "messages" | "updates" | "conflated" | "bytes"): number =>
      Math.round((last[name] - before[name]) / this.#seconds);
    return {
      ...last,
      latencyP50Ms: latency.quantile(0.5),
      latencyP99Ms: latency.quantile(0.99),
      lagMs: this.lagMs,
      messagesPerSecond: rate("messages"),
      updatesPerSecond: rate("updates"),
      conflatedPerSecond: rate("conflated"),
      bytesPerSecond: rate("bytes"),
      tradesDropped: this.dropped,
      frames: this.frames,
    };
  }
}
