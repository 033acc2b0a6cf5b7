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
  /** Those that wait for an update. */
  readonly #asleep: (() => void)[] = [];
  #ended = false;

  /**
   * @param finish is called once when the loop is left, or {@link end} is called
   * @param dropped is called for each log entry that is let go
   */
  constructor(
    readonly most: number,
    readonly finish: () => void,
    readonly dropped: () => void,
  ) {}

  push(update: U): void {
    if (this.#ended) return;
    const isLog = update.channel === "trade" || update.channel === "raw";
    this.#waiting.set(isLog ? this.#next++ : update.channel + update.row, update);
    if (this.#next - this.#oldest > this.most) {
      this.#waiting.delete(this.#oldest++);
      this.dropped();
    }
    this.#rouse();
  }

  async next(): Promise<IteratorResult<U>> {
    for (const [key, value] of this.#waiting) {
      this.#waiting.delete(key);
      if (typeof key === "number") this.#oldest = key + 1;
      return { value, done: false };
    }
    if (this.#ended) return END;
    await new Promise<void>((resolve) => this.#asleep.push(resolve));
    return this.next();
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
    this.#rouse();
    this.finish();
  }

  #rouse(): void {
    for (const wake of this.#asleep.splice(0)) wake();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
