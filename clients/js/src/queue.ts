/**
 * Updates that wait for a loop.
 *
 * What always holds: it is bounded. Of state the newest waits; of logs so many, and the oldest go first.
 */

import type { Update } from "./types";

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
    if (wake !== undefined) return wake({ value: update, done: false });
    const isLog = update.channel === "trade" || update.channel === "raw";
    if (!isLog) {
      this.#waiting.set(update.channel + update.row, update);
      return;
    }
    this.#waiting.set(this.#next++, update);
    if (this.#next - this.#oldest > this.most) this.#waiting.delete(this.#oldest++);
  }

  next(): Promise<IteratorResult<U>> {
    const first = this.#waiting.entries().next();
    if (!first.done) {
      const [key, value] = first.value;
      this.#waiting.delete(key);
      if (typeof key === "number") this.#oldest = key + 1;
      return Promise.resolve({ value, done: false });
    }
    if (this.#ended) return Promise.resolve({ value: undefined, done: true });
    return new Promise((resolve) => this.#wake.push(resolve));
  }

  return(): Promise<IteratorResult<U>> {
    this.#waiting.clear();
    this.end();
    return Promise.resolve({ value: undefined, done: true });
  }

  /** No more will come; what waits is still handed over. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const wake of this.#wake.splice(0)) wake({ value: undefined, done: true });
    this.finish();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
