/**
 * The queue of updates for a loop.
 *
 * What always holds: its size is bounded. It has the newest update of each state, and of logs at most `capacity`, where
 * the oldest are dropped first.
 */

import type { Update } from "./types";

const END = { value: undefined, done: true } as const;

export class UpdateQueue<U extends Update> implements AsyncIterableIterator<U> {
  readonly #queued = new Map<string | number, U>();
  /** Numbers of log entries: the oldest in the queue, and the next. */
  #oldest = 0;
  #next = 0;
  /** Calls of `next` that wait for an update. */
  readonly #waiters: (() => void)[] = [];
  #ended = false;

  /**
   * @param finish is called once when the loop is left, or {@link end} is called
   * @param dropped is called for each log entry that is dropped
   */
  constructor(
    readonly capacity: number,
    readonly finish: () => void,
    readonly dropped: () => void,
  ) {}

  push(update: U): void {
    if (this.#ended) return;
    const isLog = update.channel === "trade" || update.channel === "raw";
    this.#queued.set(isLog ? this.#next++ : update.channel + update.row, update);
    if (this.#next - this.#oldest > this.capacity) {
      this.#queued.delete(this.#oldest++);
      this.dropped();
    }
    this.#wakeAll();
  }

  async next(): Promise<IteratorResult<U>> {
    for (const [key, value] of this.#queued) {
      this.#queued.delete(key);
      if (typeof key === "number") this.#oldest = key + 1;
      return { value, done: false };
    }
    if (this.#ended) return END;
    await new Promise<void>((resolve) => this.#waiters.push(resolve));
    return this.next();
  }

  async return(): Promise<IteratorResult<U>> {
    this.#queued.clear();
    this.end();
    return END;
  }

  /** No more updates follow; those in the queue are still returned. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#wakeAll();
    this.finish();
  }

  #wakeAll(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
