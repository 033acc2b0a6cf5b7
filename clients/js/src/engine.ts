/**
 * The stream side: takes commands of the page side, and sends reports and batches. It runs in a worker, or with the
 * same code on the page's thread.
 *
 * What always holds: requests stay below the rate of the server's welcome; a token is kept only where all records
 * before it have come; a batch is sent only when it is pulled.
 */

import { Authentication } from "./authentication";
import { ServerConnection } from "./connection";
import { Interest, Stage, type Item, type ServerRequest, type Token } from "./interest";
import { nowMs, type Command, type Report, type Settings, type SubscriptionSpec } from "./messages";
import { Outbox } from "./outbox";
import { Store } from "./store";
import type { ClientError, Connection, InstrumentState, WebSocketConstructor } from "./types";
import { CAUGHT_UP, CHANNELS, ms, u64 } from "./wire";

/** The share of the server's request rate that is used; the rest is for pings and differing clocks. */
const RATE_SHARE = 0.8;
const PING_EVERY_S = 5;

export class Engine {
  readonly #interest = new Interest();
  readonly #connection: ServerConnection;
  readonly #authentication: Authentication;
  readonly #outbox: Outbox;
  readonly #store: Store;
  readonly #reportedNames = new Set<string>();
  /** The last reported answer of each subscription, as JSON. */
  readonly #reportedAnswers = new WeakMap<SubscriptionSpec, string>();
  /** Requests without an answer, by id. */
  readonly #pending = new Map<number, ServerRequest>();
  /** The last ping, and the results of the last eight. */
  #pingId = 0;
  #pingMs = 0;
  readonly #pings: { rttMs: number; clockOffsetMs: number }[] = [];
  /** Requests held back by the rate limit, and the time at which the rate allows for all that were sent. */
  #queue: string[] = [];
  #paidMs = 0;
  #requestMs = 100;
  #flushTimer: ReturnType<typeof setTimeout> | undefined;
  /** Of the newest packet before which nothing is missing: not updated while a snapshot or replay is under way. */
  #token: Token | null = null;
  /** Items whose snapshot or replay is under way. */
  #syncing = 0;
  #nextId = 1;
  readonly #secondTimer: ReturnType<typeof setInterval>;
  #seconds = 0;
  #isDirty = false;

  constructor(
    settings: Settings,
    Socket: WebSocketConstructor,
    readonly report: (report: Report) => void,
  ) {
    this.#interest.defaultMs = settings.conflateMs;
    this.#outbox = new Outbox(settings.tradeBacklog);
    this.#store = new Store(this.#outbox, settings.bookDepth, {
      broken: (row) => this.#resyncBook(row),
      rounded: (row, channel) =>
        this.#reportNames("inexact", "a value beyond 2^53", [this.#symbol(row)], `${CHANNELS[channel - 1]} of `),
      known: (symbol, isDefined) => this.#known(symbol, isDefined),
    });
    this.#connection = new ServerConnection(settings, Socket, {
      changed: (connection) => this.#connectionChanged(connection),
      message: (data) => this.#message(data),
      url: () => report({ t: "url", why: this.#authentication.why }),
      expired: (reason) => this.#authentication.expired(reason),
      lost: () => this.#connectionLost(),
      probe: () => this.#ping(),
      notAdmitted: (message) => this.#error("origin", message),
    });
    this.#authentication = new Authentication(settings, {
      ask: (why) => report({ t: "token", why }),
      request: (request) => this.#send(request),
      error: (code, message) => this.#error(code, message),
      failed: (message, isFinal) =>
        isFinal ? this.#connection.close(message, 4001) : this.#connection.fail(message, 4001),
    });
    this.#connection.connect();
    this.#secondTimer = setInterval(() => this.#everySecond(), 1000);
  }

  /** Carries out commands of the page side; their requests are sent together. */
  handle(commands: readonly Command[]): void {
    if (commands.filter((command) => this.#handle(command)).length > 0) this.#plan();
    this.#reportDirty();
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
        this.#authentication.present(command.token);
        if (command.error?.startsWith("no token")) this.#error("token", command.error);
        return command.error ? this.#connection.fail(command.error) : this.#connection.connectTo(command.url);
      case "token":
        return this.#authentication.received(command.token, command.error);
      case "online":
        return this.#connection.phase === "waiting" && this.#connection.connect();
      case "reconnect":
        return this.#connection.reconnect();
      case "pull":
        if (this.#store.statesDirty) this.#setStates();
        this.#isDirty = false;
        return this.report({ t: "batch", batch: this.#store.take(command.spent) });
      case "close":
        return this.#end();
    }
  }

  #end(): void {
    clearInterval(this.#secondTimer);
    clearTimeout(this.#flushTimer);
    this.#connection.close();
  }

  #reportDirty(): void {
    if (this.#isDirty || (this.#outbox.empty && !this.#store.statesDirty)) return;
    this.#isDirty = true;
    this.report({ t: "dirty" });
  }

  #connectionChanged(connection: Connection): void {
    this.report({ t: "connection", connection });
    this.#store.statesDirty = true;
    if (connection.phase === "closed") {
      if (connection.code) this.#error("closed", connection.reason);
      this.#end();
    }
    this.#reportDirty();
  }

  #connectionLost(): void {
    this.#authentication.lost();
    this.#interest.connectionLost(this.#token);
    this.#token = null;
    this.#forgetDropped();
    this.#pending.clear();
    this.#queue = [];
    clearTimeout(this.#flushTimer);
    this.#flushTimer = undefined;
    this.#store.statesDirty = true;
  }

  #message(data: string | ArrayBuffer): void {
    try {
      this.#store.counters.messages++;
      if (typeof data !== "string") this.#packet(new DataView(data));
      else this.#control(JSON.parse(data));
    } catch (error) {
      const { message } = error as Error;
      // A replay from the token would bring the same packet again: the next connection gets a snapshot.
      this.#token = null;
      this.#error("protocol", message);
      this.#connection.fail(message, 1002);
    }
    this.#reportDirty();
  }

  #packet(view: DataView): void {
    this.#store.ingest(view);
    this.#outbox.packet(ms(view, 16), nowMs());
    if (view.getUint8(1) & CAUGHT_UP) this.#caughtUp();
    const position = u64(view, 8);
    if (!this.#syncing) this.#token = position < 2 ** 53 ? { epoch: view.getUint32(4, true), position } : null;
  }

  #caughtUp(): void {
    this.#syncing = 0;
    this.#interest.markSynced();
    this.#store.statesDirty = true;
    this.#reportAnswers();
  }

  #control(message: any): void {
    const request = this.#pending.get(message.id);
    // A replay that is overtaken becomes a snapshot, and is answered once more.
    if (message.type !== "resumed") this.#pending.delete(message.id);
    switch (message.type) {
      case "welcome":
        return this.#welcome(this.#authentication.greeted(message));
      case "authenticated":
        return this.#authenticated(message);
      case "expiring":
        return this.#authentication.expiring();
      case "subscribed":
      case "resumed":
        return request && this.#answered(message, request);
      case "unsubscribed":
        // Records of the dropped items may have come until here.
        return this.#forgetDropped();
      case "pong":
        return this.#pong(message);
      case "error":
        if (this.#authentication.refused(message)) return;
        for (const item of request?.items ?? []) if (item.stage === Stage.Requested) item.stage = Stage.Refused;
        this.#error("refused", `${message.code}: ${message.message}`, request?.symbols.slice(0, 10));
        return this.#reportAnswers();
      case "closing":
        this.#connection.hintMs = message.reconnect_ms ?? -1;
    }
  }

  /** Begins with a connection that can be used. */
  #welcome(greeting: any): void {
    if (!greeting) return;
    const { epoch, version, heartbeat_ms: heartbeatMs = 5000, limits, auth, delay_s: delayS = 0 } = greeting;
    const former = this.#connection.current.epoch;
    if (former) this.#store.counters.reconnects++;
    if (former && former !== epoch) this.#store.newEpoch();
    this.#requestMs = 1000 / Math.max(1, (limits?.requests_per_s ?? 50) * RATE_SHARE);
    this.#interest.symbolsMax = Math.min(2000, limits?.symbols ?? 2000);
    this.#paidMs = this.#syncing = 0;
    const identity = identityOf(greeting);
    // A server that names a user knows it by a cookie, and takes tokens.
    const login = auth ?? (identity.user ? "optional" : "none");
    const resumed = this.#interest.resumed(epoch);
    this.#connection.welcomed({ epoch, version, delayS, resumed, ...identity, login }, heartbeatMs);
    this.#plan();
    this.#ping();
    // Before any value of this connection comes, so that the resynchronisation shows as a state.
    this.#setStates();
  }

  /** A token was accepted: the first of a connection, or the next one, with other rights perhaps. */
  #authenticated(message: any): void {
    const greeting = this.#authentication.authenticated(message);
    const { dropped = [] } = message;
    const identity = identityOf(message);
    if (greeting) this.#welcome(greeting);
    else this.#connection.identified(identity);
    this.report({ t: "identity", identity: { ...identity, dropped } });
    if (!greeting) this.#askAgain(this.#interest.rightsChanged(dropped));
  }

  /** Asks what the client's rights allow of these items. */
  #askAgain(items: readonly Item[]): void {
    for (const request of this.#interest.again(items)) this.#request(request);
  }

  #setStates(): void {
    this.#store.setStates((row) => this.#stateOf(row));
  }

  /** Sends the requests that are due. */
  #plan(): void {
    if (this.#interest.subscriptions.size > 0 && this.#connection.phase === "idle") this.#connection.connect();
    if (!this.#connection.live) {
      // Without a connection, dropped items need no unsubscribe.
      this.#interest.dropUnused(null);
      return this.#forgetDropped();
    }
    for (const request of this.#interest.plan(this.#token)) this.#request(request);
    this.#store.statesDirty = true;
    this.#reportAnswers();
  }

  #request(request: ServerRequest): void {
    const { op, channels, symbols, requestedMs, token } = request;
    const timed = op === "unsubscribe" ? {} : { conflate_ms: requestedMs };
    this.#pending.set(this.#send({ op, channels, symbols, ...timed, ...token }), request);
  }

  /** Resets the sequences of items that are no longer subscribed: their next record follows on nothing. */
  #forgetDropped(): void {
    this.#store.statesDirty = true;
    for (const { row, symbol } of this.#store.instruments.values()) {
      this.#store.forget(
        row,
        [...this.#interest.covering(symbol)].filter((item) => item.stage !== Stage.Denied).map((item) => item.channel),
      );
    }
  }

  #answered(message: any, request: ServerRequest): void {
    if (message.type === "resumed" && request.items.some((item) => item.recovering)) {
      this.#connection.resumed(message.how);
    }
    const { unknown = [], denied = [], limited = [], delayed = [] } = message;
    const { channels } = request;
    const continues = message.type === "resumed" && message.how === "replay";
    const ends = this.#interest.depthAnswered(request.items, message.book_depth ?? 0, continues);
    const isPart = new Set(limited);
    for (const item of request.items) {
      const { name } = item.target;
      item.partial = isPart.has(name);
      item.delayed = delayed.includes(name);
      const wasLive = item.stage > Stage.Requested && !denied.includes(name);
      if (request.again ? wasLive : item.stage !== Stage.Requested) continue;
      if (item.stage === Stage.Syncing) this.#syncing--;
      item.synced = false;
      // Several answers may come before one common snapshot: only its end completes them.
      item.stage = Stage.Syncing;
      if (denied.includes(name)) item.stage = Stage.Denied;
      if (unknown.includes(name)) item.stage = Stage.Unknown;
      // Known in this epoch: it was released while the connection was lost.
      if (unknown.includes(name)) this.#store.release(name);
      if (item.stage === Stage.Syncing) this.#syncing++;
      else item.recovering = false;
    }
    for (const end of ends) this.#request(end);
    if (ends.length > 0) this.#plan();
    // A later right to them begins anew: what came meanwhile is not missing.
    if (denied.length > 0) this.#forgetDropped();
    if (channels.length > 1) this.#askAgain(request.items.filter((item) => item.partial));
    this.#reportNames("unknown_symbol", "no such instrument yet", unknown);
    const whole = denied.filter((name: string) => !this.#interest.isGranted(name));
    this.#reportNames("denied", "not for this client", whole);
    if (!request.again) this.#reportNames("limited", "only a part is for this client", limited);
    this.#reportNames("delayed", "this client's right is to delayed data, which is not served here", delayed);
    this.#reportAnswers();
  }

  /** Reports each name once. */
  #reportNames(code: ClientError["code"], what: string, names: readonly string[], of = ""): void {
    const fresh = names.filter((name) => !this.#reportedNames.has(of + what + name));
    for (const name of fresh) this.#reportedNames.add(of + what + name);
    if (fresh.length > 0) this.#error(code, `${of}${fresh.slice(0, 10).join(", ")}: ${what}`, fresh);
  }

  #error(code: ClientError["code"], message: string, symbols: readonly string[] = []): void {
    this.report({ t: "error", error: { code, message, symbols } });
  }

  /** Puts the answers that have changed into the next batch. */
  #reportAnswers(): void {
    for (const spec of this.#interest.subscriptions.values()) {
      const answer = this.#interest.resultOf(spec);
      const text = JSON.stringify(answer);
      if (!answer || text === this.#reportedAnswers.get(spec)) continue;
      this.#reportedAnswers.set(spec, text);
      this.#outbox.pending.answers.set(spec.id, answer);
    }
  }

  #symbol(row: number): string {
    return this.#store.instruments.get(row)!.symbol;
  }

  /** An instrument was defined, or released. */
  #known(symbol: string, isDefined: boolean): void {
    if (this.#interest.known(symbol, isDefined)) this.#reportAnswers();
  }

  /** A book has a gap: only a new subscription brings a snapshot of it. */
  #resyncBook(row: number): void {
    const symbols = [this.#symbol(row)];
    const item = [...this.#interest.covering(symbols[0])].find(({ channel }) => channel === "book");
    if (!item) return;
    const about = { channels: ["book"], symbols };
    const subscribe = { op: "subscribe", ...about, conflate_ms: item.requestedMs };
    const unsubscribe = { op: "unsubscribe", ...about };
    const isNamed = item.target.name === symbols[0];
    for (const request of isNamed ? [unsubscribe, subscribe] : [subscribe, unsubscribe]) this.#send(request);
  }

  /** Sends a request, now or when the rate allows it; returns its id. */
  #send(request: object): number {
    const id = this.#nextId++;
    this.#queue.push(JSON.stringify({ id, ...request }));
    this.#flush();
    return id;
  }

  #flush(): void {
    clearTimeout(this.#flushTimer);
    this.#flushTimer = undefined;
    while (this.#queue.length > 0) {
      const now = nowMs();
      // The requests of one second may go at once.
      const waitMs = this.#paidMs + this.#requestMs - now - 1000;
      if (waitMs > 0) return void (this.#flushTimer = setTimeout(() => this.#flush(), waitMs + 1));
      this.#paidMs = Math.max(this.#paidMs, now) + this.#requestMs;
      this.#connection.send(this.#queue.shift()!);
    }
  }

  #ping(): void {
    if (!this.#connection.live || this.#queue.length > 0) return;
    this.#pingMs = nowMs();
    this.#pingId = this.#send({ op: "ping" });
  }

  #pong({ id, ts }: any): void {
    if (id !== this.#pingId) return;
    const now = nowMs();
    // A time in ns as a JSON number is off by up to 128 ns: little compared with a round trip.
    const ping = { rttMs: now - this.#pingMs, clockOffsetMs: ts / 1e6 - (now + this.#pingMs) / 2 };
    if (this.#pings.push(ping) > 8) this.#pings.shift();
    const best = this.#pings.reduce((one, other) => (other.rttMs < one.rttMs ? other : one));
    Object.assign(this.#store.counters, best);
  }

  #everySecond(): void {
    this.#seconds++;
    this.#connection.checkSilence();
    // The first pings follow each other quickly, so that the estimates are soon good.
    if (this.#pings.length < 4 || this.#seconds % PING_EVERY_S === 0) this.#ping();
    this.report({ t: "counters", counters: { ...this.#store.counters }, atMs: nowMs() });
  }

  #stateOf(row: number): InstrumentState {
    const items = [...this.#interest.covering(this.#symbol(row))].filter(isGranted);
    if (this.#connection.phase !== "live" || items.length === 0) return "STALE";
    if (items.every(({ stage }) => stage === Stage.Unknown)) return "UNKNOWN";
    const isSynced = items.some((item) => item.synced) && !items.some((item) => item.recovering);
    return isSynced ? this.#store.stateOf(row) : "RESYNCING";
  }
}

/** The server has not refused it. */
function isGranted({ stage }: Item): boolean {
  return stage !== Stage.Refused && stage !== Stage.Denied;
}

/** The identity in a welcome or an answer to a token. */
function identityOf({ user = "", expires_in_s: seconds }: any): Pick<Connection, "user" | "expiresAt"> {
  return { user, expiresAt: seconds === undefined ? 0 : Date.now() + seconds * 1000 };
}
