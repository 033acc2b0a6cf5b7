/**
 * The stream's side whole: commands of the page come in, reports and batches go out. It runs in a worker, or on the
 * page's thread with the very same code.
 *
 * What always holds: requests keep below the rate that the server's welcome grants; a token is taken only where all
 * before it has come; a batch goes out only when it is asked for.
 */

import { Interest, Phase, type Ask, type Item, type Token } from "./interest";
import { Link } from "./link";
import { nowMs, type Command, type Report, type Settings, type Wanted } from "./messages";
import { Outbox } from "./outbox";
import { Store } from "./store";
import type { ClientError, Connection, InstrumentState, WebSocketConstructor } from "./types";
import { CAUGHT_UP, CHANNELS, ms, u64 } from "./wire";

/** Of the requests that the server takes, this part is used: pings and clocks that differ have the rest. */
const RATE = 0.8;
const UNKNOWN_MOST_S = 30;
const PING_S = 5;

export class Engine {
  readonly #interest = new Interest();
  readonly #link: Link;
  readonly #outbox: Outbox;
  readonly #store: Store;
  readonly #told = new Set<string>();
  /** The answer that was reported last, as JSON. */
  readonly #reported = new WeakMap<Wanted, string>();
  /** Asked and not answered, by id. */
  readonly #asked = new Map<number, Ask>();
  /** The newest ping, and what the last ones found. */
  #pingId = 0;
  #pingMs = 0;
  readonly #rounds: { rttMs: number; clockOffsetMs: number }[] = [];
  /** Requests that wait for the rate; and when, at the rate, those that were sent are worked off. */
  #queue: string[] = [];
  #busyMs = 0;
  #requestMs = 100;
  #sender: ReturnType<typeof setTimeout> | undefined;
  /** Of the newest packet before which nothing is missing: none is taken while a snapshot or replay is under way. */
  #token: Token | null = null;
  /** Items whose snapshot or replay is under way. */
  #filling = 0;
  #nextId = 1;
  readonly #beat: ReturnType<typeof setInterval>;
  #beats = 0;
  /** At which beat unknown names are asked for again, and how long it is then to the next time. */
  #retryBeat = 0;
  #retryBeats = 1;
  #isDirty = false;

  constructor(
    settings: Settings,
    Socket: WebSocketConstructor,
    readonly report: (report: Report) => void,
  ) {
    this.#interest.defaultMs = settings.conflateMs;
    this.#outbox = new Outbox(settings.tradeBacklog);
    this.#store = new Store(this.#outbox, settings.bookDepth, {
      broken: (row) => this.#resync(row),
      inexact: (row, channel) =>
        this.#tellNames("inexact", "a value beyond 2^53", [this.#symbol(row)], `${CHANNELS[channel - 1]} of `),
    });
    this.#link = new Link(settings, Socket, {
      changed: (connection) => this.#changed(connection),
      message: (data) => this.#message(data),
      url: () => report({ t: "url" }),
      lost: () => this.#lost(),
      probe: () => this.#ping(),
    });
    this.#link.connect();
    this.#beat = setInterval(() => this.#everySecond(), 1000);
  }

  /** Carries out what the page asks; all of one call travels together. */
  handle(commands: readonly Command[]): void {
    if (commands.filter((command) => this.#handle(command)).length > 0) this.#plan();
    this.#tellDirty();
  }

  /** True if the interest has changed. */
  #handle(command: Command): unknown {
    switch (command.t) {
      case "sub":
        this.#interest.set(command);
        return true;
      case "end":
        this.#interest.end(command.id);
        return true;
      case "ms":
        this.#interest.defaultMs = command.ms;
        this.#interest.leastMs = command.leastMs;
        return true;
      case "url":
        return command.error ? this.#link.fail(command.error) : this.#link.connectTo(command.url);
      case "online":
        return this.#link.phase === "waiting" && this.#link.connect();
      case "pull":
        if (this.#store.statesDirty) this.#setStates();
        this.#isDirty = false;
        return this.report({ t: "batch", batch: this.#store.take(command.spent) });
      case "close":
        return this.#end();
    }
  }

  #end(): void {
    clearInterval(this.#beat);
    clearTimeout(this.#sender);
    this.#link.close();
  }

  #tellDirty(): void {
    if (this.#isDirty || (this.#outbox.empty && !this.#store.statesDirty)) return;
    this.#isDirty = true;
    this.report({ t: "dirty" });
  }

  #changed(connection: Connection): void {
    this.report({ t: "connection", connection });
    this.#store.statesDirty = true;
    if (connection.phase === "closed") {
      if (connection.code) this.#error("closed", connection.reason);
      this.#end();
    }
    this.#tellDirty();
  }

  #lost(): void {
    this.#interest.lost(this.#token);
    this.#token = null;
    this.#forget();
    this.#asked.clear();
    this.#queue = [];
    clearTimeout(this.#sender);
    this.#sender = undefined;
    this.#store.statesDirty = true;
  }

  #message(data: string | ArrayBuffer): void {
    try {
      this.#store.counters.messages++;
      if (typeof data !== "string") this.#packet(new DataView(data));
      else this.#control(JSON.parse(data));
    } catch (error) {
      const { message } = error as Error;
      this.#error("protocol", message);
      this.#link.fail(message, 1002);
    }
    this.#tellDirty();
  }

  #packet(view: DataView): void {
    this.#store.ingest(view);
    this.#outbox.packet(ms(view, 16), nowMs());
    if (view.getUint8(1) & CAUGHT_UP) this.#complete();
    const position = u64(view, 8);
    if (!this.#filling) this.#token = position < Infinity ? { epoch: view.getUint32(4, true), position } : null;
  }

  #complete(): void {
    this.#filling = 0;
    this.#interest.complete();
    this.#store.statesDirty = true;
    this.#tellSubscriptions();
  }

  #control(message: any): void {
    const ask = this.#asked.get(message.id);
    // A replay that is overtaken becomes a snapshot, and is answered once more.
    if (message.type !== "resumed") this.#asked.delete(message.id);
    switch (message.type) {
      case "welcome":
        return this.#welcome(message);
      case "subscribed":
      case "resumed":
        return ask && this.#answered(message, ask);
      case "unsubscribed":
        // Until here records of what was given up may have come.
        return this.#forget();
      case "pong":
        return this.#pong(message);
      case "error":
        for (const item of ask?.parts ?? []) if (item.stage === Phase.Asked) item.stage = Phase.Refused;
        this.#error("refused", `${message.code}: ${message.message}`, ask?.symbols.slice(0, 10));
        return this.#tellSubscriptions();
      case "closing":
        this.#link.hintMs = message.reconnect_ms ?? -1;
    }
  }

  #welcome({ epoch, version, heartbeat_ms: heartbeatMs = 5000, limits }: any): void {
    const former = this.#link.current.epoch;
    if (former) this.#store.counters.reconnects++;
    if (former && former !== epoch) this.#store.newEpoch();
    this.#requestMs = 1000 / Math.max(1, (limits?.requests_per_s ?? 50) * RATE);
    this.#interest.symbolsMax = Math.min(2000, limits?.symbols ?? 2000);
    this.#busyMs = this.#filling = 0;
    this.#retryBeats = 1;
    this.#link.welcomed({ epoch, version, resumed: this.#interest.resumed(epoch) }, heartbeatMs);
    this.#plan();
    this.#ping();
    // However soon the values are here: they were not before.
    this.#setStates();
  }

  #setStates(): void {
    this.#store.setStates((row) => this.#stateOf(row));
  }

  /** Asks what is to be asked. */
  #plan(): void {
    if (this.#interest.wanted.size > 0 && this.#link.phase === "idle") this.#link.connect();
    if (!this.#link.live) {
      // What nobody wants any more is forgotten all the same.
      this.#interest.drop(null);
      return this.#forget();
    }
    for (const ask of this.#interest.plan(this.#token)) {
      const { op, channels, symbols, askedMs, token } = ask;
      const timed = op === "unsubscribe" ? {} : { conflate_ms: askedMs };
      this.#asked.set(this.#send({ op, channels, symbols, ...timed, ...token }), ask);
    }
    this.#store.statesDirty = true;
    this.#tellSubscriptions();
  }

  /** Of what nobody wants any more, continuity means nothing. */
  #forget(): void {
    this.#store.statesDirty = true;
    for (const { row, symbol } of this.#store.instruments) {
      this.#store.forget(
        row,
        [...this.#interest.covering(symbol)].map((item) => item.channel),
      );
    }
  }

  #answered(message: any, ask: Ask): void {
    if (message.type === "resumed" && ask.parts.some((item) => item.recovering)) {
      this.#link.resumed(message.how);
    }
    const { unknown = [], denied = [] } = message;
    for (const item of ask.parts) {
      const { name } = item.target;
      if (item.stage !== Phase.Asked) continue;
      // Answers may come together, before one snapshot of all that was asked: only its end says that it is here.
      item.stage = Phase.Filling;
      if (denied.includes(name)) item.stage = Phase.Refused;
      if (unknown.includes(name)) item.stage = Phase.Unknown;
      if (item.stage === Phase.Filling) this.#filling++;
      else item.recovering = false;
    }
    // Instruments may come later: a publisher that was lost with the server defines them when it is back.
    if (this.#retryBeat <= this.#beats) this.#retryBeat = this.#beats + this.#retryBeats;
    this.#tellNames("unknown_symbol", "no such instrument yet", unknown);
    this.#tellNames("denied", "not for this client", denied);
    this.#tellSubscriptions();
  }

  /** Each name is told once, however often it comes up. */
  #tellNames(code: ClientError["code"], what: string, names: readonly string[], of = ""): void {
    const news = names.filter((name) => !this.#told.has(of + what + name));
    for (const name of news) this.#told.add(of + what + name);
    if (news.length > 0) this.#error(code, `${of}${news.slice(0, 10).join(", ")}: ${what}`, news);
  }

  #error(code: ClientError["code"], message: string, symbols: readonly string[] = []): void {
    this.report({ t: "error", error: { code, message, symbols } });
  }

  #tellSubscriptions(): void {
    for (const wanted of this.#interest.wanted.values()) {
      const found = this.#interest.result(wanted);
      const answer = JSON.stringify(found);
      if (!found || answer === this.#reported.get(wanted)) continue;
      this.#reported.set(wanted, answer);
      this.#outbox.waiting.answers.set(wanted.id, found);
    }
  }

  #symbol(row: number): string {
    return this.#store.instruments[row].symbol;
  }

  /** A book has a hole: only a subscription that is new brings it whole. */
  #resync(row: number): void {
    const symbols = [this.#symbol(row)];
    const item = [...this.#interest.covering(symbols[0])].find(({ channel }) => channel === "book");
    if (!item) return;
    const about = { channels: ["book"], symbols };
    const ask = { op: "subscribe", ...about, conflate_ms: item.askedMs };
    const end = { op: "unsubscribe", ...about };
    for (const request of item.target.name === symbols[0] ? [end, ask] : [ask, end]) this.#send(request);
  }

  /** Sends a request, now or when the rate allows it; returns its id. */
  #send(request: object): number {
    const id = this.#nextId++;
    this.#queue.push(JSON.stringify({ id, ...request }));
    this.#flush();
    return id;
  }

  #flush(): void {
    clearTimeout(this.#sender);
    this.#sender = undefined;
    while (this.#queue.length > 0) {
      const now = nowMs();
      // What a second takes may go at once.
      const waitMs = this.#busyMs + this.#requestMs - now - 1000;
      if (waitMs > 0) return void (this.#sender = setTimeout(() => this.#flush(), waitMs + 1));
      this.#busyMs = Math.max(this.#busyMs, now) + this.#requestMs;
      this.#link.send(this.#queue.shift()!);
    }
  }

  #ping(): void {
    if (!this.#link.live || this.#queue.length > 0) return;
    this.#pingMs = nowMs();
    this.#pingId = this.#send({ op: "ping" });
  }

  #pong({ id, ts }: any): void {
    if (id !== this.#pingId) return;
    const now = nowMs();
    // A time in ns as a JSON number is off by up to 128 ns: nothing beside a round trip.
    const round = { rttMs: now - this.#pingMs, clockOffsetMs: ts / 1e6 - (now + this.#pingMs) / 2 };
    if (this.#rounds.push(round) > 8) this.#rounds.shift();
    const best = this.#rounds.reduce((one, other) => (other.rttMs < one.rttMs ? other : one));
    Object.assign(this.#store.counters, best);
  }

  #everySecond(): void {
    this.#beats++;
    this.#link.look();
    // A few quick ones at first, so that the figures are soon good.
    if (this.#rounds.length < 4 || this.#beats % PING_S === 0) this.#ping();
    if (this.#beats === this.#retryBeat) {
      this.#retryBeats = Math.min(this.#retryBeats * 2, UNKNOWN_MOST_S);
      if (this.#interest.retryUnknown()) this.#plan();
    }
    this.report({ t: "counters", counters: { ...this.#store.counters }, atMs: nowMs() });
  }

  #stateOf(row: number): InstrumentState {
    const items = [...this.#interest.covering(this.#symbol(row))].filter(isGranted);
    if (this.#link.phase !== "live" || items.length === 0) return "STALE";
    // A server that has just started may not know an instrument yet that a pattern covers.
    const isHere = items.some((item) => item.whole) && !items.some((item) => item.recovering);
    return isHere ? this.#store.stateOf(row) : "RESYNCING";
  }
}

/** The server has not said that there is no such thing for us. */
function isGranted({ stage }: Item): boolean {
  return stage !== Phase.Unknown && stage !== Phase.Refused;
}
