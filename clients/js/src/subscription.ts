/** What `subscribe` returns: the application's end of an interest. */

import type { Answer, Command } from "./messages";
import { bitsOf, channelsOf, interval, symbolsOf } from "./options";
import type { Channel, SubscribeOptions, Subscription, SubscriptionResult } from "./types";

const NOTHING: SubscriptionResult = { unknown: [], denied: [], conflateMs: 0 };

export class OpenSubscription implements Subscription {
  readonly channels: readonly Channel[];
  readonly ready: Promise<SubscriptionResult>;
  closed = false;
  #symbols: readonly string[];
  #wantedMs: number | null;
  #result = NOTHING;
  #resolve!: (result: SubscriptionResult) => void;
  #reject!: (reason: unknown) => void;
  readonly #bits: number;
  readonly #signal: AbortSignal | undefined;
  readonly #ends: (() => void)[] = [];
  readonly #abort = (): void => this.close();
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
    this.#bits = bitsOf(this.channels);
    this.#wantedMs = options.conflateMs == null ? null : interval(options.conflateMs);
    this.ready = new Promise((resolve, reject) => ([this.#resolve, this.#reject] = [resolve, reject]));
    // Who does not wait for it need not hear that it failed.
    this.ready.catch(() => {});
    this.#signal = options.signal;
    this.#signal?.addEventListener("abort", this.#abort);
    if (this.#signal?.aborted === true) this.close();
    else this.#tell();
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
    this.#wantedMs = ms === null ? null : interval(ms);
    this.#tell();
  }

  get unknown(): readonly string[] {
    return this.#result.unknown;
  }

  get denied(): readonly string[] {
    return this.#result.denied;
  }

  get conflateMs(): number {
    return this.#result.conflateMs;
  }

  close(): void {
    this.end(this.#signal?.reason ?? new DOMException("the subscription was closed", "AbortError"));
  }

  /** Ends it, for a reason. */
  end(reason: unknown): void {
    if (this.closed) return;
    this.closed = true;
    this.#signal?.removeEventListener("abort", this.#abort);
    this.#reject(reason);
    for (const ended of this.#ends) ended();
    this.post({ t: "end", id: this.id });
    this.gone(this);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Calls back when it has ended, at once if it has. */
  onEnd(ended: () => void): void {
    if (this.closed) ended();
    else this.#ends.push(ended);
  }

  /** True where the same name or pattern and channel may be wanted by both. */
  overlaps(other: OpenSubscription): boolean {
    if (!this.channels.some((channel) => other.channels.includes(channel))) return false;
    const own = new Set(this.symbols);
    return other.symbols.some((symbol) => own.has(symbol) || this.#matches(symbol));
  }

  /** The server has answered. */
  answered({ result, done }: Answer): void {
    this.#result = result;
    if (done) this.#resolve(result);
  }

  /** True where it is about this instrument; the answer is kept by row. */
  covers(row: number, symbol: string): boolean {
    return (this.#memo[row] ??= this.#matches(symbol));
  }

  #matches(symbol: string): boolean {
    return this.#symbols.some((name) => (name.endsWith("*") ? symbol.startsWith(name.slice(0, -1)) : name === symbol));
  }

  #tell(): void {
    if (this.closed) return;
    this.post({ t: "sub", id: this.id, symbols: this.#symbols, channels: this.#bits, ms: this.#wantedMs });
  }
}
