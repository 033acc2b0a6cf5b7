/**
 * One side of a book: prices and sizes in two sorted arrays, the best first.
 *
 * Cost: a binary search and a copyWithin per level; 16 bytes a level.
 */
export class Ladder {
  length = 0;
  px = new Float64Array(32);
  sz = new Float64Array(32);

  /** @param sign 1 for asks, where the lowest price is best, -1 for bids */
  constructor(readonly sign: 1 | -1) {}

  /** Sets a level to an absolute size; 0 removes it. Removing what is not there is normal. */
  set(price: number, size: number): void {
    const at = this.#find(price * this.sign);
    const found = at < this.length && this.px[at] === price;
    if (size === 0) {
      if (found) this.#remove(at);
      return;
    }
    if (!found) this.#insert(at, price);
    this.sz[at] = size;
  }

  #find(key: number): number {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.px[middle] * this.sign < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #insert(at: number, price: number): void {
    if (this.length === this.px.length) {
      const [px, sz] = [new Float64Array(this.length * 2), new Float64Array(this.length * 2)];
      px.set(this.px);
      sz.set(this.sz);
      this.px = px;
      this.sz = sz;
    }
    this.px.copyWithin(at + 1, at, this.length);
    this.sz.copyWithin(at + 1, at, this.length);
    this.px[at] = price;
    this.length++;
  }

  #remove(at: number): void {
    this.px.copyWithin(at, at + 1, this.length);
    this.sz.copyWithin(at, at + 1, this.length);
    this.length--;
  }
}
