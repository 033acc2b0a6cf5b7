/** What `subscribe` returns: the application's end of an interest. */

import type { Answer, Command } from "./messages";
import { channelsOf, intervalOrNull, onAbort, symbolsOf } from "./options";
import type { Channel, SubscribeOptions, Subscription, SubscriptionResult } from "./types";

export class OpenSubscription implements Subscription {
  readonly channels: readonly Channel[];
  ready!: Promise<SubscriptionResult>;
  closed = false;
  readonly [Symbol.dispose] = this.close;
  unknown: readonly string[] = [];
  denied: readonly string[] = [];
  conflateMs = 0;
  #symbols: readonly string[];
  #wantedMs: number | null;
  #nth = 0;
  #resolve?: (result: SubscriptionResult | Promise<SubscriptionResult>) => void;
  #reject!: (reason: unknown) => void;
  readonly #signal: AbortSignal | undefined;
  /** Aborted when it has ended. */
  readonly #ended = new AbortController();
  /** Whether it covers a row, for those that were asked. */
  #memo: boolean[] = [];

  constructor(
    readonly id: number,
    options: SubscribeOptions,
    readonly post: (command: Command) => void,
    readonly gone: (subscription: OpenSubscription) => void,
  ) {
    this.#symbols = symbolsOf(options.symbols);
    this.channels = channelsOf(options.channels);
    this.#wantedMs = intervalOrNull(options.conflateMs);
    this.#signal = options.signal;
    this.#tell();
    onAbort(this.#signal, () => this.close(), this.#ended.signal);
  }

  get symbols(): readonly string[] {
    return this.#symbols;
  }

  set symbols(symbols: readonly string[]) {
    this.#symbols = symbolsOf(symbols);
    this.#memo = [];
    this.#tell();
  }

  get wantedMs(): number | null {
    return this.#wantedMs;
  }

  set wantedMs(ms: number | null) {
    this.#wantedMs = intervalOrNull(ms);
    this.#tell();
  }

  close(): void {
    this.end(this.#signal?.reason ?? new DOMException("the subscription was closed", "AbortError"));
  }

  /** Ends it, for a reason. */
  end(reason: unknown): void {
    if (this.closed) return;
    this.closed = true;
    this.#ended.abort();
    this.#reject(reason);
    this.post({ t: "end", id: this.id });
    this.gone(this);
  }

  /** Calls back when it has ended, at once if it has. */
  onEnd(ended: () => void): void {
    onAbort(this.#ended.signal, ended);
  }

  /** The server has answered. */
  answered({ nth, result, done }: Answer): void {
    if (nth !== this.#nth) return;
    Object.assign(this, result);
    if (done) this.#resolve!(result);
  }

  /** True where it is about this instrument; the answer is kept by row. */
  covers(row: number, symbol: string): boolean {
    return (this.#memo[row] ??= this.#symbols.some((name) =>
      name.endsWith("*") ? symbol.startsWith(name.slice(0, -1)) : name === symbol,
    ));
  }

  #tell(): void {
    if (this.closed) return;
    const former = this.#resolve;
    this.ready = new Promise((resolve, reject) => ([this.#resolve, this.#reject] = [resolve, reject]));
    // Who does not wait for it need not hear that it failed.
    this.ready.catch(() => {});
    former?.(this.ready);
    const { id, channels } = this;
    this.post({ t: "sub", id, nth: ++this.#nth, symbols: this.#symbols, channels, ms: this.#wantedMs });
  }
}
