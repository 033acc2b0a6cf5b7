/**
 * Groups the levels of a book for the ladder. Pure, on mantissas: a sum of sizes that a float does not hold exactly has
 * a rest, as the client's sizes have, so that its text is exact.
 */

/** One side of a book, the best level first. */
export interface Side {
  readonly px: ArrayLike<number>;
  readonly sz: ArrayLike<number>;
  /** What exact sizes are above those of `sz`. */
  readonly szRest: ArrayLike<number>;
  readonly length: number;
}

/** A row of the ladder. `px` is the bucket's edge with the worst price for the taker. */
export interface Level {
  px: number;
  sz: number;
  szRest: number;
  /** The sum of sizes from the best price to this level. */
  cumulative: number;
  cumulativeRest: number;
}

/**
 * Groups one side into buckets of `step`, best first, at most `most` of them. Bids round down and asks round up, so
 * that no bucket has a better price than its levels.
 */
export function grouped(side: Side, step: number, ask: boolean, most: number): Level[] {
  const levels: Level[] = [];
  let last: Level | undefined;
  let [cumulative, cumulativeRest] = [0, 0];
  for (let at = 0; at < side.length; at++) {
    const [sz, rest] = [side.sz[at] ?? 0, side.szRest[at] ?? 0];
    const px = bucket(side.px[at] ?? 0, step, ask);
    if (last === undefined || last.px !== px) {
      if (levels.length === most) break;
      last = { px, sz: 0, szRest: 0, cumulative, cumulativeRest };
      levels.push(last);
    }
    [cumulative, cumulativeRest] = sum(cumulative, sz, cumulativeRest + rest);
    [last.sz, last.szRest] = sum(last.sz, sz, last.szRest + rest);
    [last.cumulative, last.cumulativeRest] = [cumulative, cumulativeRest];
  }
  return levels;
}

/** The rounded sum, and what the exact one is above it with these rests: Knuth's two-sum. */
function sum(a: number, b: number, rests: number): [sum: number, rest: number] {
  const rounded = a + b;
  const part = rounded - a;
  return [rounded, a - (rounded - part) + (b - part) + rests];
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
