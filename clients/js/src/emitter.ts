/**
 * Listeners. The platform's own way: one that throws does not keep the others from hearing, and what it throws is
 * reported as uncaught; a signal ends it.
 */
export class Emitter<Events> extends EventTarget {
  /** Returns how to end it. A listener that is added twice is told twice. */
  on<E extends keyof Events & string>(
    event: E,
    listener: (value: Events[E]) => void,
    options?: AddEventListenerOptions,
  ): () => void {
    const own = (event: Event): void => listener((event as CustomEvent<Events[E]>).detail);
    this.addEventListener(event, own, options);
    return () => this.removeEventListener(event, own);
  }

  tell<E extends keyof Events & string>(event: E, detail: Events[E]): void {
    this.dispatchEvent(new CustomEvent(event, { detail }));
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
