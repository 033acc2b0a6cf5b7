/** Samples of the newest minutes, at most one per second, with strictly rising times. Pure. */

/** The samples to keep: ten minutes at one per second. */
export const SAMPLES_MAX = 600;
/** The oldest are dropped in groups of this size, because a chart that loses points must be given all of them again. */
const DROPPED_AT_ONCE = 60;
/** A step of the clock back by more seconds drops all samples; after a smaller one none is added until it catches up. */
const STEP_S = 60;

export interface Timed<T> {
  /** Unix seconds, whole. */
  readonly time: number;
  readonly value: T;
}

export class Samples<T> {
  /** Oldest first. */
  points: Timed<T>[] = [];

  /**
   * Adds a sample. `added`: it is the last point; `renewed`: points at the start were dropped as well; `skipped`: its
   * second has a sample already, or the clock stepped back a little.
   */
  add(unixMs: number, value: T): "added" | "renewed" | "skipped" {
    const time = Math.floor(unixMs / 1000);
    const last = this.points.at(-1)?.time ?? -Infinity;
    const isReset = time < last - STEP_S;
    if (time <= last && !isReset) return "skipped";
    if (isReset) this.points = [];
    this.points.push({ time, value });
    const isFull = this.points.length > SAMPLES_MAX + DROPPED_AT_ONCE;
    if (isFull) this.points = this.points.slice(-SAMPLES_MAX);
    return isReset || isFull ? "renewed" : "added";
  }
}
