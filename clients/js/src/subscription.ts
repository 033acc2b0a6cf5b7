/** The object that `subscribe` returns. */

import type { Answer, Command } from "./messages";
import { channelsOf, intervalOrNull, onAbort, symbolsOf, verifyOptions } from "./options";
import type { Channel, SubscribeOptions, Subscription, SubscriptionResult } from "./types";

export class OpenSubscription implements Subscription {
  readonly channels: readonly Channel[];
  ready!: Promise<SubscriptionResult>;
  closed = false;
  readonly [Symbol.dispose] = this.close;
  unknown: readonly string[] = [];
  denied: readonly string[] = [];
  limited: readonly string[] = [];
  delayed: readonly string[] = [];
  conflateMs = 0;
  #symbols: readonly string[];
  #wantedMs: number | null;
  #revision = 0;
  #resolve?: (result: SubscriptionResult | Promise<SubscriptionResult>) => void;
  #reject!: (reason: unknown) => void;
  readonly #signal: AbortSignal | undefined;
  /** Aborted when it has ended. */
  readonly #ended = new AbortController();
  /** Whether it covers a row, by row, once computed. */
  #covered: boolean[] = [];

  constructor(
    readonly id: number,
    options: SubscribeOptions,
    readonly post: (command: Command) => void,
    readonly onClosed: (subscription: OpenSubscription) => void,
  ) {
    verifyOptions(options);
    this.#symbols = symbolsOf(options.symbols);
    this.channels = channelsOf(options.channels);
    this.#wantedMs = intervalOrNull("conflateMs", options.conflateMs);
    this.#signal = options.signal;
    this.#send();
    onAbort(this.#signal, () => this.close(), this.#ended.signal);
  }

  get symbols(): readonly string[] {
    return this.#symbols;
  }

  set symbols(symbols: readonly string[]) {
    this.#symbols = symbolsOf(symbols);
    this.#covered = [];
    this.#send();
  }

  get wantedMs(): number | null {
    return this.#wantedMs;
  }

  set wantedMs(ms: number | null) {
    this.#wantedMs = intervalOrNull("wantedMs", ms);
    this.#send();
  }

  close(): void {
    this.end(this.#signal?.reason ?? new DOMException("the subscription was closed", "AbortError"));
  }

  /** Ends it; `ready` rejects with the reason. */
  end(reason: unknown): void {
    if (this.closed) return;
    this.closed = true;
    this.#ended.abort();
    this.#reject(reason);
    this.post({ t: "end", id: this.id });
    this.onClosed(this);
  }

  /** Calls back when it has ended, at once if it already has. */
  onEnd(ended: () => void): void {
    onAbort(this.#ended.signal, ended);
  }

  /** The server has answered. */
  answered({ revision, result, done }: Answer): void {
    if (revision !== this.#revision) return;
    Object.assign(this, result);
    if (done) this.#resolve!(result);
  }

  /** Whether one of its names or patterns covers an instrument. */
  covers(row: number, symbol: string): boolean {
    return (this.#covered[row] ??= this.#symbols.some((name) =>
      name.endsWith("*") ? symbol.startsWith(name.slice(0, -1)) : name === symbol,
    ));
  }

  #send(): void {
    if (this.closed) return;
    const former = this.#resolve;
    this.ready = new Promise((resolve, reject) => ([this.#resolve, this.#reject] = [resolve, reject]));
    // A rejection is no error where the application does not wait for the promise.
    this.ready.catch(() => {});
    former?.(this.ready);
    const { id, channels } = this;
    this.post({ t: "sub", id, revision: ++this.#revision, symbols: this.#symbols, channels, ms: this.#wantedMs });
  }
}
