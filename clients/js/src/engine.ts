/**
 * The stream's side whole: commands of the page come in, reports and batches go out. It runs in a worker, or on the
 * page's thread with the very same code.
 *
 * What always holds: requests keep below the rate that the server's welcome grants; a token is taken only where all
 * before it has come; a batch goes out only when it is asked for.
 */

import type { ClientError, Connection, WebSocketConstructor } from "./types";
import { Interest, type Ask, type Item, type Token } from "./interest";
import { Link } from "./link";
import {
  NO_COUNTERS,
  nowMs,
  STATES,
  type Batch,
  type Command,
  type Counters,
  type Report,
  type Settings,
} from "./messages";
import { Outbox } from "./outbox";
import { Store } from "./store";
import { CAUGHT_UP, CHANNELS, u64, wholeMs, restNs, WireError } from "./wire";

const [LIVE, STALE, RESYNCING, HALTED, ENDED] = STATES.keys();
/** Of the requests that the server takes, this part is used: pings and clocks that differ have the rest. */
const RATE = 0.8;
const UNKNOWN_FIRST_MS = 1000;
const UNKNOWN_MOST_MS = 30_000;
const PING_MS = 5000;

export class Engine {
  readonly #counters: Counters = { ...NO_COUNTERS };
  readonly #interest = new Interest();
  readonly #link: Link;
  readonly #outbox: Outbox;
  readonly #store: Store;
  readonly #told = new Set<string>();
  /** Asked and not answered, by id. */
  readonly #asked = new Map<number, Ask>();
  readonly #pings = new Map<number, number>();
  readonly #rounds: { rttMs: number; clockOffsetMs: number }[] = [];
  /** Requests that wait for the rate, and how many may go now. */
  #queue: string[] = [];
  #allowance = 1;
  #allowedMs = 0;
  #perSecond = 10;
  #sender: ReturnType<typeof setTimeout> | undefined;
  /** Of the newest packet before which nothing is missing: none is taken while a snapshot or replay is under way. */
  #token: Token | null = null;
  /** Items whose snapshot or replay is under way. */
  #filling = 0;
  #nextId = 1;
  #beat: ReturnType<typeof setInterval> | undefined;
  #beats = 0;
  #unknownMs = UNKNOWN_FIRST_MS;
  #unknownTimer: ReturnType<typeof setTimeout> | undefined;
  #hidden = false;
  #isDirty = false;
  #statesDirty = false;

  constructor(
    readonly settings: Settings,
    Socket: WebSocketConstructor,
    readonly report: (report: Report) => void,
  ) {
    this.#interest.defaultMs = settings.conflateMs;
    this.#outbox = new Outbox(settings.tradeBacklog);
    this.#store = new Store(this.#outbox, settings.bookDepth, {
      status: (row) => (row < 0 ? (this.#statesDirty = true) : this.#setState(row)),
      broken: (row) => this.#resync(row),
      inexact: (row, channel) => this.#inexact(row, channel),
    });
    this.#link = new Link(settings, Socket, {
      changed: (connection) => this.#changed(connection),
      message: (data) => this.#message(data),
      url: () => this.report({ t: "url" }),
      lost: () => this.#lost(),
      probe: () => this.#ping(),
    });
    this.#link.connect();
    this.#beat = setInterval(() => this.#everySecond(), 1000);
  }

  /** Carries out what the page asks; all of one call travels together. */
  handle(commands: readonly Command[]): void {
    let planned = false;
    for (const command of commands) planned = this.#handle(command) || planned;
    if (planned) this.#plan();
    this.#tellDirty();
  }

  /** True if the interest has changed. */
  #handle(command: Command): boolean {
    switch (command.t) {
      case "sub":
        this.#interest.set(command.id, command.symbols, command.channels, command.ms);
        return true;
      case "end":
        this.#interest.end(command.id);
        return true;
      case "ms":
        this.#interest.defaultMs = command.ms;
        return true;
      case "hidden":
        this.#hidden = command.hidden;
        this.#interest.leastMs = this.#hidden ? (this.settings.hiddenConflateMs ?? 0) : 0;
        return true;
      case "url":
        if (command.error === undefined) this.#link.connectTo(command.url);
        else this.#link.fail(command.error);
        return false;
      case "online":
        if (this.#link.connection.phase === "waiting") this.#link.connect();
        return false;
      case "pull":
        this.#pull(command.spent);
        return false;
      case "close":
        this.#end();
        return false;
      default:
        return false;
    }
  }

  #end(): void {
    clearInterval(this.#beat);
    clearTimeout(this.#unknownTimer);
    clearTimeout(this.#sender);
    this.#link.close();
  }

  #pull(spent: Batch | null): void {
    if (this.#statesDirty) this.#setStates();
    this.#isDirty = false;
    this.report({ t: "batch", batch: this.#store.take(spent) });
  }

  #tellDirty(): void {
    if (this.#isDirty || (this.#outbox.empty && !this.#statesDirty)) return;
    this.#isDirty = true;
    this.report({ t: "dirty" });
  }

  #changed(connection: Connection): void {
    this.report({ t: "connection", connection });
    this.#statesDirty = true;
    if (connection.phase === "closed") {
      const message = connection.reason || "closed";
      if (connection.code !== 0) this.#error("closed", message);
      this.#end();
    }
    this.#tellDirty();
  }

  #lost(): void {
    this.#interest.lost(this.#token);
    this.#token = null;
    for (const { op, items } of this.#asked.values())
      if (op === "unsubscribe") items.forEach((item) => this.#dropped(item));
    this.#asked.clear();
    this.#pings.clear();
    this.#queue = [];
    clearTimeout(this.#sender);
    clearTimeout(this.#unknownTimer);
    this.#sender = this.#unknownTimer = undefined;
    this.#statesDirty = true;
  }

  #message(data: string | ArrayBuffer): void {
    try {
      this.#counters.messages++;
      if (typeof data !== "string") this.#packet(data);
      else this.#control(JSON.parse(data));
    } catch (error) {
      if (!(error instanceof WireError || error instanceof SyntaxError)) throw error;
      this.#error("protocol", error.message);
      this.#link.fail(`unreadable: ${error.message}`, 1002);
    }
    this.#tellDirty();
  }

  #packet(data: ArrayBuffer): void {
    const view = new DataView(data);
    this.#counters.bytes += data.byteLength;
    this.#store.ingest(view);
    const now = nowMs();
    this.#outbox.packet(wholeMs(view, 16) + restNs(view, 16) / 1e6, now);
    if ((view.getUint8(1) & CAUGHT_UP) !== 0) this.#complete();
    if (this.#filling > 0) return;
    const position = u64(view, 8);
    this.#token = Number.isFinite(position) ? { epoch: view.getUint32(4, true), position } : null;
  }

  #complete(): void {
    this.#filling = 0;
    this.#interest.complete();
    this.#statesDirty = true;
    this.#tellSubscriptions();
  }

  #control(message: any): void {
    switch (message.type) {
      case "welcome":
        return this.#welcome(message);
      case "subscribed":
      case "resumed":
        return this.#answered(message);
      case "unsubscribed":
        // Until here records of what was given up may have come.
        for (const item of this.#asked.get(message.id)?.items ?? []) this.#dropped(item);
        this.#asked.delete(message.id);
        return;
      case "pong":
        return this.#pong(message.id, message.ts);
      case "error":
        return this.#refused(message);
      case "closing":
        this.#link.hintMs = message.reconnect_ms ?? -1;
    }
  }

  #welcome(message: any): void {
    const { epoch, version, heartbeat_ms: heartbeatMs, limits } = message;
    const former = this.#link.connection.epoch;
    if (former !== 0) this.#counters.reconnects++;
    if (former !== 0 && former !== epoch) this.#store.newEpoch();
    this.#interest.forgetTokens(epoch);
    this.#perSecond = Math.max(1, (limits?.requests_per_s ?? 50) * RATE);
    this.#interest.symbolsMax = Math.min(2000, limits?.symbols ?? 2000);
    [this.#allowance, this.#allowedMs] = [this.#perSecond, nowMs()];
    [this.#filling, this.#unknownMs] = [0, UNKNOWN_FIRST_MS];
    this.#link.welcomed(epoch, version, heartbeatMs ?? 5000);
    this.#link.resumed(former === 0 ? "fresh" : "snapshot");
    this.#plan();
    this.#ping();
  }

  /** Asks what is to be asked. */
  #plan(): void {
    if (this.#interest.wanted.size > 0 && this.#link.connection.phase === "idle") this.#link.connect();
    if (!this.#link.live) {
      // What nobody wants any more is forgotten all the same.
      this.#interest.prune((item) => this.#dropped(item));
      return;
    }
    for (const ask of this.#interest.plan(this.#token)) {
      const id = this.#nextId++;
      this.#asked.set(id, ask);
      const { op, channels, symbols, conflateMs, token } = ask;
      const request: Record<string, unknown> = { op, id, channels, symbols };
      if (op !== "unsubscribe") request.conflate_ms = Math.min(1000, conflateMs);
      if (op === "resume") Object.assign(request, token);
      this.#send(request);
    }
    this.#statesDirty = true;
    this.#tellSubscriptions();
  }

  #dropped(item: Item): void {
    this.#statesDirty = true;
    for (const { row, symbol } of this.#store.instruments) {
      const { target } = item;
      if (target.prefix === undefined ? symbol !== target.name : !symbol.startsWith(target.prefix)) continue;
      let covered = false;
      this.#interest.eachCovering(symbol, (other) => (covered ||= other.channel === item.channel));
      if (!covered) this.#store.forget(row, item.channel);
    }
  }

  #answered(message: any): void {
    const ask = this.#asked.get(message.id);
    // A later answer says that what went before has come to its end.
    if (this.#filling > 0 && ask !== undefined) this.#complete();
    if (message.type === "resumed" && ask?.items.some((item) => item.recovering) === true) {
      this.#link.resumed(message.how === "replay" ? "replay" : "snapshot");
    }
    if (ask === undefined) return;
    this.#asked.delete(message.id);
    const unknown = new Set<string>(message.unknown ?? []);
    const denied = new Set<string>(message.denied ?? []);
    for (const item of ask.items) {
      const { name } = item.target;
      if (item.phase !== "asked") continue;
      item.phase = unknown.has(name) ? "unknown" : denied.has(name) ? "refused" : item.complete ? "live" : "filling";
      if (item.phase === "filling") this.#filling++;
      else item.recovering = false;
    }
    this.#tellNames("unknown_symbol", "no such instrument yet", unknown);
    this.#tellNames("denied", "not for this client", denied);
    this.#awaitUnknown();
    this.#tellSubscriptions();
  }

  /** Each name is told once, however often it is asked for. */
  #tellNames(code: "unknown_symbol" | "denied", what: string, names: ReadonlySet<string>): void {
    const news = [...names].filter((name) => !this.#told.has(code + name));
    for (const name of news) this.#told.add(code + name);
    if (news.length > 0) this.#error(code, `${what}: ${news.slice(0, 10).join(", ")}`, news);
  }

  /** Instruments may come later: a publisher that was lost with the server defines them when it is back. */
  #awaitUnknown(): void {
    if (this.#unknownTimer !== undefined || ![...this.#interest.items()].some((item) => item.phase === "unknown"))
      return;
    this.#unknownTimer = setTimeout(() => {
      this.#unknownTimer = undefined;
      this.#unknownMs = Math.min(this.#unknownMs * 2, UNKNOWN_MOST_MS);
      if (this.#interest.retryUnknown()) this.#plan();
    }, this.#unknownMs);
  }

  #refused(message: any): void {
    const ask = this.#asked.get(message.id);
    this.#asked.delete(message.id);
    for (const item of ask?.items ?? []) if (item.phase === "asked") item.phase = "refused";
    this.#error("refused", `${message.code}: ${message.message}`, ask?.symbols.slice(0, 10));
    this.#tellSubscriptions();
  }

  #error(code: ClientError["code"], message: string, symbols: readonly string[] = []): void {
    this.report({ t: "error", error: { code, message, symbols } });
  }

  #inexact(row: number, channel: number): void {
    const { symbol } = this.#store.instruments[row];
    const key = `inexact${channel}${symbol}`;
    if (this.#told.has(key)) return;
    this.#told.add(key);
    this.#error("inexact", `${CHANNELS[channel - 1]} of ${symbol}: a value beyond 2^53`, [symbol]);
  }

  #tellSubscriptions(): void {
    for (const wanted of this.#interest.wanted.values()) {
      const found = this.#interest.result(wanted);
      const told = JSON.stringify(found ?? null);
      if (found === undefined || told === wanted.told) continue;
      wanted.told = told;
      this.#outbox.answers.set(wanted.id, found);
    }
  }

  /** A book has a hole: only a subscription that is new brings it whole. */
  #resync(row: number): void {
    const { symbol } = this.#store.instruments[row];
    let own: Item | undefined;
    let wider: Item | undefined;
    this.#interest.eachCovering(symbol, (item) => {
      if (item.channel !== 4) return;
      if (item.target.prefix === undefined) own = item;
      else wider ??= item;
    });
    const item = own ?? wider;
    if (item === undefined) return;
    const about = { channels: ["book"], symbols: [symbol] };
    const ask = { op: "subscribe", id: this.#nextId++, ...about, conflate_ms: Math.min(1000, item.askedMs) };
    const end = { op: "unsubscribe", id: this.#nextId++, ...about };
    for (const request of own !== undefined ? [end, ask] : [ask, end]) this.#send(request);
  }

  /** Sends a request, now or when the rate allows it. */
  #send(request: object): void {
    this.#queue.push(JSON.stringify(request));
    this.#flush();
  }

  #flush(): void {
    const now = nowMs();
    this.#allowance = Math.min(this.#perSecond, this.#allowance + ((now - this.#allowedMs) / 1000) * this.#perSecond);
    this.#allowedMs = now;
    while (this.#queue.length > 0 && this.#allowance >= 1) {
      this.#allowance--;
      this.#link.send(this.#queue.shift()!);
    }
    if (this.#queue.length === 0 || this.#sender !== undefined) return;
    this.#sender = setTimeout(
      () => {
        this.#sender = undefined;
        this.#flush();
      },
      (1000 / this.#perSecond) * (1 - this.#allowance) + 1,
    );
  }

  #ping(): void {
    if (!this.#link.live || this.#queue.length > 0) return;
    const id = this.#nextId++;
    this.#pings.set(id, nowMs());
    this.#send({ op: "ping", id });
  }

  #pong(id: number, tsNs: number): void {
    const sentMs = this.#pings.get(id);
    this.#pings.delete(id);
    if (sentMs === undefined) return;
    const now = nowMs();
    // A time in ns as a JSON number is off by up to 128 ns: nothing beside a round trip.
    this.#rounds.push({ rttMs: now - sentMs, clockOffsetMs: tsNs / 1e6 - (now + sentMs) / 2 });
    if (this.#rounds.length > 8) this.#rounds.shift();
    const best = this.#rounds.reduce((one, other) => (other.rttMs < one.rttMs ? other : one));
    Object.assign(this.#counters, best);
  }

  #everySecond(): void {
    this.#beats++;
    // A few quick ones at first, so that the figures are soon good.
    if (this.#rounds.length < 4 || (this.#beats * 1000) % PING_MS === 0) this.#ping();
    const { updates, conflated, gaps } = this.#store;
    Object.assign(this.#counters, { updates, conflated, gaps });
    this.report({ t: "counters", counters: { ...this.#counters } });
  }

  #setStates(): void {
    this.#statesDirty = false;
    for (let row = 0; row < this.#store.instruments.length; row++) this.#setState(row);
  }

  #setState(row: number): void {
    this.#store.setState(row, this.#stateOf(row));
  }

  #stateOf(row: number): number {
    if (this.#link.connection.phase !== "live") return STALE;
    let [covered, complete, recovering] = [false, false, false];
    this.#interest.eachCovering(this.#store.instruments[row].symbol, (item) => {
      covered ||= item.phase !== "unknown" && item.phase !== "refused";
      complete ||= item.complete;
      recovering ||= item.recovering;
    });
    if (!covered) return STALE;
    // A server that has just started may not know an instrument yet that a pattern covers.
    if (!complete || recovering || !this.#store.known.has(row)) return RESYNCING;
    const status = this.#store.status[row];
    if (status === 69) return ENDED;
    if (status === 72 || this.#store.instruments[row].status === "H") return HALTED;
    if (status === 83) return STALE;
    const feed = this.#store.feedStatus;
    if (feed === 83) return STALE;
    if (feed === 72 || feed === 69) return feed === 72 ? HALTED : ENDED;
    return this.#store.books.get(row)?.suspect === true ? RESYNCING : LIVE;
  }
}
