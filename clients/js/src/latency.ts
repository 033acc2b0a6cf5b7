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
    // Nothing is known of the server's clock yet.
    if (ms !== ms) return;
    const ageMs = nowMs - this.#since;
    if (ageMs > HALF_MS) {
      this.#before = ageMs > 2 * HALF_MS ? new Uint32Array(BUCKETS) : this.#now;
      this.#now = new Uint32Array(BUCKETS);
      this.#since = nowMs;
    }
    const bucket = Math.ceil(Math.log2(Math.max(ms, LEAST_MS) / LEAST_MS) * PER_OCTAVE);
    this.#now[Math.min(bucket, BUCKETS - 1)]++;
  }

  /** The upper end of the bucket in which this part of all lies; NaN where there is none. */
  quantile(part: number): number {
    const counts = this.#now.map((count, bucket) => count + this.#before[bucket]);
    let left = Math.ceil(counts.reduce((sum, count) => sum + count) * part);
    return left ? LEAST_MS * 2 ** (counts.findIndex((count) => (left -= count) <= 0) / PER_OCTAVE) : NaN;
  }
}
