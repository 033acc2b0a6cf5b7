/**
 * A histogram of latencies over a sliding window: two halves of five seconds, of which the older is let go.
 *
 * Buckets grow by an eighth of a power of two from 0.05 ms to a minute, so that a percentile is right to some 9 %.
 */

const PER_OCTAVE = 8;
const LEAST_MS = 0.05;
const BUCKETS = 21 * PER_OCTAVE;
const HALF_MS = 5000;

export class Latency {
  #now = new Uint32Array(BUCKETS);
  #before = new Uint32Array(BUCKETS);
  #since = 0;

  add(ms: number, nowMs: number): void {
    if (nowMs - this.#since > HALF_MS) {
      const fresh = nowMs - this.#since > 2 * HALF_MS;
      [this.#now, this.#before] = [this.#before, this.#now];
      this.#now.fill(0);
      if (fresh) this.#before.fill(0);
      this.#since = nowMs;
    }
    const bucket = Math.ceil(Math.log2(Math.max(ms, LEAST_MS) / LEAST_MS) * PER_OCTAVE);
    this.#now[Math.min(bucket, BUCKETS - 1)]++;
  }

  /** The upper end of the bucket in which this part of all lies; NaN where there is none. */
  quantile(part: number): number {
    let total = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) total += this.#now[bucket] + this.#before[bucket];
    let left = Math.ceil(total * part);
    for (let bucket = 0; left > 0; bucket++) {
      left -= this.#now[bucket] + this.#before[bucket];
      if (left <= 0) return LEAST_MS * 2 ** (bucket / PER_OCTAVE);
    }
    return NaN;
  }
}
