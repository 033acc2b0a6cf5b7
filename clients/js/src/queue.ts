/**
 * Updates that wait for a loop.
 *
 * What always holds: it is bounded. Of state the newest waits; of logs so many, and the oldest go first.
 */

import type { Update } from "./types";

const END = { value: undefined, done: true } as const;

export class UpdateQueue<U extends Update> implements AsyncIterableIterator<U> {
  readonly #waiting = new Map<string | number, U>();
  /** Numbers of log entries: the oldest that waits, and the next. */
  #oldest = 0;
  #next = 0;
  #wake: ((result: IteratorResult<U>) => void)[] = [];
  #ended = false;

  /** @param finish is called once when the loop is left, or {@link end} is called */
  constructor(
    readonly most: number,
    readonly finish: () => void,
  ) {}

  push(update: U): void {
    if (this.#ended) return;
    const wake = this.#wake.shift();
    if (wake) return wake({ value: update, done: false });
    const isLog = update.channel === "trade" || update.channel === "raw";
    this.#waiting.set(isLog ? this.#next++ : update.channel + update.row, update);
    if (this.#next - this.#oldest > this.most) this.#waiting.delete(this.#oldest++);
  }

  async next(): Promise<IteratorResult<U>> {
    const first = this.#waiting.entries().next();
    if (!first.done) {
      const [key, value] = first.value;
      this.#waiting.delete(key);
      if (typeof key === "number") this.#oldest = key + 1;
      return { value, done: false };
    }
    return this.#ended ? END : new Promise((resolve) => this.#wake.push(resolve));
  }

  async return(): Promise<IteratorResult<U>> {
    this.#waiting.clear();
    this.end();
    return END;
  }

  /** No more will come; what waits is still handed over. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const wake of this.#wake.splice(0)) wake(END);
    this.finish();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
