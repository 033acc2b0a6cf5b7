/**
 * The page side: the client that the application holds. It sends subscriptions as commands, and pulls a batch of
 * changes once per animation frame.
 *
 * What always holds: at most one batch is under way, in answer to a pull; its arrays return with the next pull. A
 * hidden page has no frames, and pulls by a timer.
 */

import { FIELDS, type Quotes, type Tickers, type Trades } from "./columns";
import { Dispatch } from "./dispatch";
import { guarded } from "./emitter";
import { Figures } from "./figures";
import { decimal, nearest } from "./format";
import { NO_CONNECTION, type Batch, type Command, type Report } from "./messages";
import { FUNCTION, oneOf, verify, type Rule } from "./check";
import { interval, onAbort, settingsOf, streamUrl, verifyOptions } from "./options";
import { UpdateQueue } from "./queue";
import { Port } from "./spawn";
import { OpenSubscription } from "./subscription";
import { Tokens } from "./token";
import { CHANNELS } from "./wire";
import type * as types from "./types";
import type { Channel, ClientEvents, Connection, ListenOptions, UpdateOf, UpdateOptions } from "./types";

/** The conflation interval of hidden pages, and how often they pull, where the options do not say. */
const HIDDEN_MS = 1000;

const EVENT = oneOf("connection", "authenticated", "state", "gap", "error", "lag", "instrument", "released");
/** Channels with columns. */
const VALUES = oneOf(...CHANNELS.slice(0, 3));
const INSTRUMENT: Rule = [(value) => /number|string/.test(typeof value), "a row or a symbol"];

export class OpenClient implements types.Client {
  connection = NO_CONNECTION;
  hidden = false;
  readonly closed: Promise<Connection>;
  readonly #dispatch = new Dispatch();
  readonly #mirror = this.#dispatch.mirror;
  readonly #figures = new Figures();
  readonly #port: Port;
  readonly #tokens: Tokens;
  /** The stream's URL, once it is known. */
  #url = "";
  readonly #subscriptions = new Map<number, OpenSubscription>();
  readonly #inFrames: boolean;
  #conflateMs: number;
  readonly #hiddenMs: number;
  readonly #backlog: number;
  #nextId = 1;
  /** The commands of one microtask, which are sent together. */
  #commands: Command[] = [];
  /** There are changes to pull. */
  #dirty = false;
  /** A pull is under way. */
  #pulling = false;
  /** A batch that has come and is not delivered yet; one that is delivered, and returns with the next pull. */
  #arrived: Batch | null = null;
  #spent: Batch | null = null;
  #frame = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #lagEmittedMs = 0;
  #droppedEmitted = 0;
  #resolveClosed!: (connection: Connection) => void;
  readonly [Symbol.dispose] = this.close;
  /** Aborted when the client has ended: ends its listeners on the page. */
  readonly #ended = new AbortController();

  constructor(readonly options: types.ConnectOptions) {
    const settings = settingsOf(options);
    this.#tokens = new Tokens(options.token ?? "");
    const { signal } = this.#ended;
    this.#conflateMs = settings.conflateMs;
    this.#backlog = settings.tradeBacklog;
    this.#hiddenMs = options.hiddenConflateMs ?? HIDDEN_MS;
    this.#inFrames = options.pull !== "immediate" && "requestAnimationFrame" in globalThis;
    this.closed = new Promise((resolve) => (this.#resolveClosed = resolve));
    this.#port = new Port(options, (report) => this.#report(report));
    this.#port.post([{ t: "open", settings }]);
    globalThis.document?.addEventListener("visibilitychange", () => this.#visibilityChanged(), { signal });
    globalThis.addEventListener?.("online", () => this.#send({ t: "online" }), { signal });
    this.#visibilityChanged();
    onAbort(options.signal, () => this.close(), signal);
  }

  get worker(): types.Client["worker"] {
    return this.#port.kind;
  }

  get conflateMs(): number {
    return this.#conflateMs;
  }

  set conflateMs(ms: number) {
    this.#conflateMs = interval("conflateMs", ms);
    this.#sendInterval();
  }

  subscribe(options: types.SubscribeOptions): OpenSubscription {
    const id = this.#nextId++;
    const onClosed = (): void => {
      this.#subscriptions.delete(id);
      this.#dispatch.forget(id);
    };
    const subscription = new OpenSubscription(id, options, (command) => this.#send(command), onClosed);
    if (this.connection.phase === "closed") subscription.end(this.#endReason());
    if (!subscription.closed) this.#subscriptions.set(id, subscription);
    return subscription;
  }

  onFrame(callback: (frame: types.Frame) => void, options?: ListenOptions): () => void {
    return this.#on("frame", callback, options);
  }

  onUpdate<C extends Channel = "quote">(
    options: UpdateOptions<C>,
    callback: (update: UpdateOf<C>) => void,
  ): OpenSubscription {
    verify("callback", callback, FUNCTION);
    const subscription = this.subscribe(options);
    this.#listen(subscription, (update) => guarded(() => callback(update as UpdateOf<C>)));
    return subscription;
  }

  updates<C extends Channel = "quote">(options: UpdateOptions<C>): UpdateQueue<UpdateOf<C>> {
    const subscription = this.subscribe(options);
    const queue = new UpdateQueue<UpdateOf<C>>(
      this.#backlog,
      () => subscription.close(),
      () => this.#figures.dropped++,
    );
    this.#listen(subscription, (update) => queue.push(update as UpdateOf<C>));
    subscription.onEnd(() => queue.end());
    return queue;
  }

  trades(symbols: string | readonly string[], options?: ListenOptions): UpdateQueue<types.TradeUpdate> {
    return this.updates({ symbols, channels: "trade", ...options });
  }

  on<E extends keyof ClientEvents>(
    event: E,
    callback: (value: ClientEvents[E]) => void,
    options?: ListenOptions,
  ): () => void {
    verify("event", event, EVENT);
    return this.#on(event, callback as (value: unknown) => void, options);
  }

  #on(event: keyof ClientEvents | "frame", callback: (value: any) => void, options: ListenOptions = {}): () => void {
    verify("callback", callback, FUNCTION);
    verifyOptions(options);
    return this.#dispatch.events.on(event, callback, options);
  }

  get instruments(): types.Instruments {
    return this.#mirror.instruments;
  }

  get quotes(): types.QuoteColumns {
    return this.#mirror.columns[1] as Quotes;
  }

  get tickers(): types.TickerColumns {
    return this.#mirror.columns[3] as Tickers;
  }

  get lastTrades(): types.TradeColumns {
    return this.#mirror.columns[2] as Trades;
  }

  book(instrument: number | string): types.Book | undefined {
    return this.#mirror.books.get(this.#row(instrument));
  }

  state(instrument: number | string): types.InstrumentState {
    return this.connection.phase === "closed" ? "STALE" : this.#mirror.stateOf(this.#row(instrument));
  }

  format(row: number, mantissa: number | bigint | null, rest?: number): string {
    return this.#text(this.instruments.pxExp, row, mantissa, rest);
  }

  formatSize(row: number, mantissa: number | bigint | null, rest?: number): string {
    return this.#text(this.instruments.szExp, row, mantissa, rest);
  }

  price(row: number, mantissa: number): number {
    return nearest(mantissa, this.instruments.pxExp[row]);
  }

  size(row: number, mantissa: number): number {
    return nearest(mantissa, this.instruments.szExp[row]);
  }

  exact(channel: "quote" | "trade" | "ticker", row: number, field: string): bigint | null {
    const index = CHANNELS.indexOf(channel) + 1;
    verify("channel", channel, VALUES);
    verify("field", field, oneOf(...FIELDS[index]));
    return this.#mirror.exact(index, row, field);
  }

  get stats(): types.Stats {
    return this.#figures.stats;
  }

  reconnect(): void {
    this.#send({ t: "reconnect" });
  }

  close(): void {
    this.#end({ ...this.connection, phase: "closed", reason: "closed", code: 0, retryAt: 0 });
    this.#port.end();
    this.#unschedule();
  }

  #text(exponents: ArrayLike<number>, row: number, mantissa: number | bigint | null, rest?: number): string {
    const text = decimal(mantissa, exponents[row] ?? 0, rest);
    if (text) verify("row", row, [() => row in exponents, "the row of an instrument", true]);
    return text;
  }

  /** The page was shown or hidden. */
  #visibilityChanged(): void {
    const hidden = isHidden();
    if (this.options.hiddenConflateMs !== null && hidden !== this.hidden) {
      this.hidden = hidden;
      this.#sendInterval();
    }
    // A hidden page has no frames, and a visible one needs no timer: schedules with the one that applies now.
    this.#unschedule();
    if (this.#dirty || this.#arrived) this.#schedule();
  }

  #sendInterval(): void {
    this.#send({ t: "ms", ms: this.#conflateMs, leastMs: this.hidden ? this.#hiddenMs : 0 });
  }

  #row(instrument: number | string): number {
    verify("instrument", instrument, INSTRUMENT);
    return typeof instrument === "number" ? instrument : this.instruments.row(instrument);
  }

  #listen(subscription: OpenSubscription, deliver: (update: types.Update) => void): void {
    if (subscription.closed) return;
    this.#dispatch.listen(subscription, deliver);
    const others = [...this.#subscriptions.values()].filter((other) => other !== subscription);
    queueMicrotask(() => this.#dispatch.deliverCurrent(subscription.id, others));
  }

  #send(command: Command): void {
    if (this.connection.phase === "closed") return;
    if (this.#commands.push(command) > 1) return;
    queueMicrotask(() => {
      const commands = this.#commands;
      this.#commands = [];
      this.#port.post(commands);
    });
  }

  #report(report: Report): void {
    switch (report.t) {
      case "url":
        return void this.#openWith(report.why);
      case "token":
        return void this.#renew(report.why);
      case "identity":
        return this.#dispatch.events.emit("authenticated", report.identity);
      case "dirty":
        this.#dirty = true;
        return this.#schedule();
      case "batch":
        this.#pulling = false;
        this.#arrived = report.batch;
        return this.#schedule();
      case "connection":
        if (report.connection.phase === "closed") return this.#end(report.connection);
        this.connection = report.connection;
        return this.#dispatch.events.emit("connection", report.connection);
      case "error":
        // Beside the browser's own line, which has no cause: a page may have no listener yet.
        if (report.error.code === "origin") console.error(`tickcast: ${report.error.message}`);
        return this.#dispatch.events.emit("error", report.error);
      case "counters":
        return this.#figures.count(report);
    }
  }

  async fetch(target: string | URL, init?: RequestInit): Promise<Response> {
    return this.#tokens.fetch(target, this.#url || (await this.#resolveUrl()), init);
  }

  async #resolveUrl(): Promise<string> {
    const { url } = this.options;
    const given = typeof url === "function" ? await url() : url;
    return (this.#url = streamUrl(given ?? (typeof url === "function" ? "" : undefined)));
  }

  /** The URL and the token of an attempt to connect. */
  async #openWith(why: types.TokenRequest): Promise<void> {
    let missing = "URL";
    try {
      const url = await this.#resolveUrl();
      missing = "token";
      this.#send({ t: "url", url, token: await this.#tokens.obtain(why) });
    } catch (error) {
      this.#send({ t: "url", url: "", error: `no ${missing}: ${error}` });
    }
  }

  /** The next token of an open connection. */
  async #renew(why: types.TokenRequest): Promise<void> {
    try {
      this.#send({ t: "token", token: await this.#tokens.obtain(why) });
    } catch (error) {
      this.#send({ t: "token", error: `no token: ${error}` });
    }
  }

  #end(connection: Connection): void {
    if (this.connection.phase === "closed") return;
    this.connection = connection;
    this.#ended.abort();
    for (const subscription of [...this.#subscriptions.values()]) subscription.end(this.#endReason());
    this.#resolveClosed(connection);
    this.#dispatch.events.emit("connection", connection);
  }

  #endReason(): unknown {
    return (
      this.options.signal?.reason ?? new DOMException(`the client is closed: ${this.connection.reason}`, "AbortError")
    );
  }

  #schedule(): void {
    if (this.#frame || this.#timer) return;
    if (this.#inFrames && !isHidden()) this.#frame = requestAnimationFrame((now) => this.#runFrame(now));
    else {
      // A batch that was pulled on time is delivered as soon as it comes.
      const waitMs = this.#inFrames && !this.#arrived ? this.#hiddenMs || HIDDEN_MS : 0;
      this.#timer = setTimeout(() => this.#runFrame(performance.now()), waitMs);
    }
  }

  #unschedule(): void {
    if (this.#frame) cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
    this.#frame = 0;
    this.#timer = undefined;
  }

  /** Delivers the batch that has come, and pulls the next one if there are changes. */
  #runFrame(now: number): void {
    this.#frame = 0;
    this.#timer = undefined;
    this.#deliver(now);
    if (!this.#dirty || this.#pulling) return;
    this.#dirty = false;
    this.#pulling = true;
    const spent = this.#spent;
    this.#spent = null;
    this.#port.post([{ t: "pull", spent }]);
    // Without a worker the batch has come already, and is delivered in the same frame.
    if (this.worker === "none") {
      this.#unschedule();
      this.#deliver(now);
      if (this.#dirty) this.#schedule();
    }
  }

  #deliver(now: number): void {
    const batch = this.#arrived;
    if (!batch) return;
    this.#arrived = null;
    this.#figures.shown(batch);
    this.#dispatch.apply(batch, now);
    for (const [id, answer] of batch.answers) this.#subscriptions.get(id)?.answered(answer);
    this.#spent = batch;
    this.#emitLag(now);
    // All changes up to the end are delivered: the stream side is no longer needed.
    if (this.connection.phase === "closed" && !this.#dirty) this.#port.end();
  }

  #emitLag(now: number): void {
    const { lagMs, dropped: all } = this.#figures;
    const dropped = all - this.#droppedEmitted;
    const mostMs = (this.options.lagMs ?? 1000) + (this.hidden ? this.#hiddenMs : 0);
    if ((lagMs <= mostMs && !dropped) || now - this.#lagEmittedMs < 1000) return;
    this.#lagEmittedMs = now;
    this.#dispatch.events.emit("lag", { lagMs, dropped });
    this.#droppedEmitted = all;
  }
}

function isHidden(): boolean {
  return globalThis.document?.visibilityState === "hidden";
}
