/**
 * One side of a book: prices and sizes in two sorted lists, best first.
 *
 * Cost per level: a binary search, and moving the levels behind it.
 */

import type { Side } from "./types";

export class Ladder {
  px: number[] = [];
  sz: number[] = [];

  /** @param sign 1 for asks, where the lowest price is best, -1 for bids */
  constructor(readonly sign: 1 | -1) {}

  /** Sets the size of a level; 0 removes it, also where it does not exist. */
  set(price: number, size: number): void {
    const { px, sz, sign } = this;
    let low = 0;
    let high = px.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((px[middle] - price) * sign < 0) low = middle + 1;
      else high = middle;
    }
    const found = px[low] === price ? 1 : 0;
    px.splice(low, found, ...(size ? [price] : []));
    sz.splice(low, found, ...(size ? [size] : []));
  }

  /** The best `depth` levels. */
  top(depth: number): Side {
    const px = Float64Array.from(this.px.slice(0, depth));
    return { length: px.length, px, sz: Float64Array.from(this.sz.slice(0, depth)) };
  }
}
