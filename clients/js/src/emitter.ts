/**
 * Events with a value, on the platform's EventTarget: an exception of a listener is reported as uncaught, and does not
 * stop the others; a signal removes a listener.
 */
export class Emitter<Events> extends EventTarget {
  /** Returns a function that removes the listener. A listener that is added twice is called twice. */
  on<E extends keyof Events & string>(
    event: E,
    listener: (value: Events[E]) => void,
    options?: AddEventListenerOptions,
  ): () => void {
    const own = (event: Event): void => listener((event as CustomEvent<Events[E]>).detail);
    this.addEventListener(event, own, options);
    return () => this.removeEventListener(event, own);
  }

  emit<E extends keyof Events & string>(event: E, detail: Events[E]): void {
    this.dispatchEvent(new CustomEvent(event, { detail }));
  }
}

/** Runs a callback of the application: its exception is reported as uncaught, and the stream continues. */
export function guarded(run: () => void): void {
  try {
    run();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
