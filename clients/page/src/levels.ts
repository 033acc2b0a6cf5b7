/**
 * Depth: raw levels into the rows of a ladder. Pure, on mantissas: integers that a float holds exactly, so that sums
 * and buckets are exact.
 */

/** One side of a book, the best level first. */
export interface Side {
  readonly px: ArrayLike<number>;
  readonly sz: ArrayLike<number>;
  readonly length: number;
}

/** A row of the ladder. `px` is the bucket's price: the one that is worst for the taker within it. */
export interface Level {
  px: number;
  sz: number;
  /** Sizes from the best price up to and with this level. */
  cumulative: number;
}

/**
 * Groups one side into buckets of `step`, the best first, at most `most` of them. Bids fall into the bucket at or
 * below their price, asks at or above, so that no bucket looks better than the prices in it.
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

/** The steps by which levels can be grouped: 1, 2, 5, 10, … ticks, as far as they make sense at this price. */
export function groupings(tick: number, px: number): number[] {
  const base = tick > 0 ? tick : 1;
  const steps: number[] = [];
  for (let decade = 1; steps.length < 10; decade *= 10) {
    for (const factor of [1, 2, 5]) {
      const step = base * decade * factor;
      // A step of more than a hundredth of the price leaves nothing to see.
      if (steps.length > 0 && step > Math.abs(px) / 100) return steps;
      steps.push(step);
    }
  }
  return steps;
}
