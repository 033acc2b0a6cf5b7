/**
 * Groups the levels of a book for the ladder. Pure, on mantissas: integers that a float holds exactly, so that sums and
 * buckets are exact.
 */

/** One side of a book, the best level first. */
export interface Side {
  readonly px: ArrayLike<number>;
  readonly sz: ArrayLike<number>;
  readonly length: number;
}

/** A row of the ladder. `px` is the bucket's edge with the worst price for the taker. */
export interface Level {
  px: number;
  sz: number;
  /** The sum of sizes from the best price to this level. */
  cumulative: number;
}

/**
 * Groups one side into buckets of `step`, best first, at most `most` of them. Bids round down and asks round up, so
 * that no bucket has a better price than its levels.
 */
export function grouped(side: Side, step: number, ask: boolean, most: number): Level[] {
  const levels: Level[] = [];
  let last: Level | undefined;
  let cumulative = 0;
  for (let at = 0; at < side.length; at++) {
    const sz = side.sz[at] ?? 0;
    const px = bucket(side.px[at] ?? 0, step, ask);
    if (last === undefined || last.px !== px) {
      if (levels.length === most) break;
      last = { px, sz: 0, cumulative };
      levels.push(last);
    }
    cumulative += sz;
    last.sz += sz;
    last.cumulative = cumulative;
  }
  return levels;
}

/** The bucket's edge: at or below for a bid, at or above for an ask. `%` is exact on integers. */
function bucket(px: number, step: number, ask: boolean): number {
  const over = px % step;
  if (over === 0) return px;
  const below = px - over - (over < 0 ? step : 0);
  return ask ? below + step : below;
}

/** The steps for grouping: 1, 2, 5, 10, … ticks, up to a hundredth of the price. */
export function groupings(tick: number, px: number): number[] {
  const base = tick > 0 ? tick : 1;
  const steps: number[] = [];
  for (let decade = 1; steps.length < 10; decade *= 10) {
    for (const factor of [1, 2, 5]) {
      const step = base * decade * factor;
      if (steps.length > 0 && step > Math.abs(px) / 100) return steps;
      steps.push(step);
    }
  }
  return steps;
}
