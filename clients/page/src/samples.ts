/** Samples of the newest minutes, at most one a second, their times strictly rising. Pure. */

/** Samples kept, some ten minutes at one a second. */
export const SAMPLES_MAX = 600;
/** The oldest are dropped in one go of so many: a chart that loses points at its start is given all anew. */
const DROPPED_AT_ONCE = 60;
/** A clock that stepped back by more than this many seconds begins anew: samples would else wait until it caught up. */
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
   * Takes a sample. `added`: it is the last of the points; `renewed`: points at the start are gone as well; `skipped`:
   * its second is there already, or the clock stepped back a little.
   */
  add(unixMs: number, value: T): "added" | "renewed" | "skipped" {
    const time = Math.floor(unixMs / 1000);
    const last = this.points.at(-1)?.time ?? -Infinity;
    const isAnew = time < last - STEP_S;
    if (time <= last && !isAnew) return "skipped";
    if (isAnew) this.points = [];
    this.points.push({ time, value });
    const isFull = this.points.length > SAMPLES_MAX + DROPPED_AT_ONCE;
    if (isFull) this.points = this.points.slice(-SAMPLES_MAX);
    return isAnew || isFull ? "renewed" : "added";
  }
}
