/** Listeners, told one after another; one that throws does not keep the others from hearing. */
export class Emitter<T> {
  readonly #listeners = new Set<(value: T) => void>();

  get size(): number {
    return this.#listeners.size;
  }

  /** Returns how to end it; the signal ends it as well. */
  add(listener: (value: T) => void, signal?: AbortSignal): () => void {
    // A listener that is added twice is told twice.
    const own = (value: T): void => listener(value);
    const end = (): void => {
      this.#listeners.delete(own);
      signal?.removeEventListener("abort", end);
    };
    if (signal?.aborted === true) return end;
    this.#listeners.add(own);
    signal?.addEventListener("abort", end);
    return end;
  }

  tell(value: T): void {
    for (const listener of this.#listeners) guarded(() => listener(value));
  }
}

/** Runs what belongs to the application: what it throws is reported as uncaught, and the stream goes on. */
export function guarded(run: () => void): void {
  try {
    run();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
