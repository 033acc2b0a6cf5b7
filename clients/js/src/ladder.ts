/**
 * One side of a book: prices, sizes and the rests of sizes beyond 2^53 in three sorted lists, best first.
 *
 * Cost per level: a binary search, and moving the levels behind it.
 */

import type { Side } from "./types";

export class Ladder {
  px: number[] = [];
  sz: number[] = [];
  rests: number[] = [];

  /** @param sign 1 for asks, where the lowest price is best, -1 for bids */
  constructor(readonly sign: 1 | -1) {}

  /** Sets the size of a level; 0 removes it, also where it does not exist. */
  set(price: number, size: number, rest: number): void {
    const { px, sign } = this;
    let low = 0;
    let high = px.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((px[middle] - price) * sign < 0) low = middle + 1;
      else high = middle;
    }
    const found = px[low] === price ? 1 : 0;
    const put = (list: number[], value: number): unknown => list.splice(low, found, ...(size ? [value] : []));
    put(px, price);
    put(this.sz, size);
    put(this.rests, rest);
  }

  /** The best `depth` levels. */
  top(depth: number): Side {
    const px = Float64Array.from(this.px.slice(0, depth));
    const sz = Float64Array.from(this.sz.slice(0, depth));
    return { length: px.length, px, sz, szRest: Int16Array.from(this.rests.slice(0, depth)) };
  }
}
