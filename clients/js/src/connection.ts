/**
 * The connection to the server: opens it, detects silence, and reconnects.
 *
 * What always holds: after a loss the first attempt is immediate, each later one after a random time below half of the
 * outage so far, unless the server sent a delay; an outage ends only with a stream that was live for a while. It does
 * not reconnect where the attempt would be wrong: with credentials that were refused or have expired (4001, 4003, HTTP
 * 401 and 403), where another session of the user has taken its place (4005: it would take it back, and so on), or after
 * exceeding the request rate (1008). A browser hides the status of a refused handshake, so plain requests ask for it:
 * to the same URL, and whether the server admits the page's origin. Where it does not, the attempts go on, as the
 * operator may admit it at any time.
 *
 * It does not read records.
 */

import { NO_CONNECTION, nowMs, type Settings } from "./messages";
import type { Connection, ConnectionPhase, WebSocketConstructor, WebSocketLike } from "./types";

/** Reasons for a user to read, where the server has sent none. */
const REASONS: Record<number, string> = {
  ...{ 1006: "connection lost", 4001: "credentials expired", 4003: "no longer entitled" },
  ...{ 401: "not authorised", 403: "forbidden" },
};

/** Missed heartbeats after which the connection counts as stale, and after which it is closed. */
const STALE_HEARTBEATS = 2.5;
const DEAD_HEARTBEATS = 4;

export interface ConnectionEvents {
  changed(connection: Connection): void;
  /** A text of the server, or a packet. Throws where it cannot be read. */
  message(data: string | ArrayBuffer): void;
  /** An attempt needs the URL: {@link ServerConnection.connectTo} is to be called with it. */
  url(): void;
  /** The server has closed with 4001: true if another token may help. */
  expired(reason: string): boolean;
  /** The socket is lost; called before `changed`. */
  lost(): void;
  /** Nothing was received for long: a ping is to be sent. */
  probe(): void;
  /** The server does not admit the page; called once for an outage. */
  notAdmitted(message: string): void;
}

export class ServerConnection {
  current = NO_CONNECTION;
  /** The reconnect delay of the server's `closing`; -1 for none. */
  hintMs = -1;
  #heartbeatMs = 5000;
  #socket: WebSocketLike | undefined;
  #url = "";
  #failures = 0;
  /** The begin of the outage; 0 for none. */
  #lostMs = 0;
  /** It is reported that the page is not admitted. */
  #isReported = false;
  #receivedMs = 0;
  #liveSinceMs = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #checkedMs = 0;

  constructor(
    readonly settings: Settings,
    readonly Socket: WebSocketConstructor,
    readonly events: ConnectionEvents,
  ) {}

  get phase(): ConnectionPhase {
    return this.current.phase;
  }

  get live(): boolean {
    return this.phase === "live" || this.phase === "stale";
  }

  /** Begins an attempt at once, also while waiting for the next one. */
  connect(): void {
    if (this.#socket || this.phase === "closed") return;
    clearTimeout(this.#retry);
    this.hintMs = -1;
    this.#setPhase("connecting", { attempt: this.#failures + 1 });
    this.events.url();
  }

  /** The user asks for an attempt: at once, and the next ones soon after it. A silent connection is given up. */
  reconnect(): void {
    if (this.phase === "stale") this.#drop();
    if (!/waiting|idle|stale/.test(this.phase)) return;
    this.#failures = this.#lostMs = 0;
    this.connect();
  }

  /** Continues an attempt with its URL. */
  connectTo(url: string): void {
    if (this.#socket || this.phase !== "connecting") return;
    this.#url = url;
    let socket: WebSocketLike;
    try {
      socket = this.#socket = new this.Socket(url, "tickcast.v1");
    } catch (error) {
      return this.fail((error as Error).message);
    }
    socket.binaryType = "arraybuffer";
    socket.onerror = () => {};
    socket.onmessage = (event: { data: string | ArrayBuffer }) => this.#receive(event.data);
    socket.onclose = (event: { code: number; reason: string }) => this.#closed(event.code, event.reason);
    this.#receivedMs = this.#checkedMs = nowMs();
  }

  /** The server's welcome has come. */
  welcomed(by: Omit<Connection, "phase" | "reason" | "code" | "attempt" | "retryAt">, heartbeatMs: number): void {
    this.#heartbeatMs = heartbeatMs;
    this.#liveSinceMs = nowMs();
    this.#isReported = false;
    this.#setPhase("live", { ...by, reason: "", code: 0 });
  }

  /** Another token was accepted. */
  identified(by: Pick<Connection, "user" | "expiresAt">): void {
    this.#setPhase(this.phase, by);
  }

  /** A resume was answered. One snapshot makes the whole connection's `resumed` a snapshot. */
  resumed(how: Connection["resumed"]): void {
    const { resumed } = this.current;
    if (resumed !== how && resumed !== "snapshot") this.#setPhase(this.phase, { resumed: how });
  }

  send(text: string): void {
    this.#socket?.send(text);
  }

  /** Closes the socket and reconnects. */
  fail(reason: string, code = 0): void {
    this.#drop();
    this.#retryLater(reason, code);
  }

  /** Closes for good. */
  close(reason = "closed", code = 0): void {
    if (this.phase === "closed") return;
    clearTimeout(this.#retry);
    this.#drop();
    this.#setPhase("closed", { reason, code });
  }

  #receive(data: string | ArrayBuffer): void {
    this.#receivedMs = nowMs();
    if (this.phase === "stale") this.#setPhase("live", { reason: "" });
    this.events.message(data);
  }

  #drop(): void {
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = undefined;
    // A browser may wait long for the closing handshake of a dead peer: events of this socket are ignored from here.
    socket.onmessage = socket.onclose = null;
    try {
      socket.close(1000);
    } catch {
      // Some implementations refuse to close a socket that is not open yet; it is dropped all the same.
    }
    this.events.lost();
  }

  #closed(code: number, text: string): void {
    const wasWelcomed = this.#liveSinceMs;
    const reason = text || REASONS[code] || `closed with ${code}`;
    const isRenewable = code === 4001 && this.events.expired(reason);
    this.#drop();
    if (code === 4003 || code === 4005 || (code === 4001 && !isRenewable)) return this.close(reason, code);
    if (code === 1008) {
      // Silence is no offence: a laptop that slept reconnects. A client that exceeded the rate would do so again.
      if (/subscribed/.test(text)) return this.#setPhase("idle", { reason: "", code });
      if (!/received|ping/.test(text)) return this.close(reason, code);
    }
    this.#retryLater(reason, code);
    if (!wasWelcomed) this.#findRefusal();
  }

  #retryLater(reason: string, code: number): void {
    if (this.phase === "closed") return;
    const { firstMs, mostMs, settledMs } = this.settings;
    const now = nowMs();
    if (this.#liveSinceMs && now - this.#liveSinceMs >= settledMs) this.#failures = this.#lostMs = 0;
    this.#lostMs ||= now;
    // A server that was away for seconds is found again within seconds.
    const bound = this.#failures && Math.min(mostMs, Math.max(firstMs, (now - this.#lostMs) / 2));
    const waitMs = this.hintMs >= 0 ? this.hintMs : Math.random() * bound;
    this.#failures++;
    // The end of the last good connection explains more than the failure of an attempt after it.
    const why = this.#liveSinceMs || !this.current.reason ? { reason, code } : {};
    this.#liveSinceMs = 0;
    this.#wait(waitMs, why);
  }

  #wait(waitMs: number, why: Partial<Connection>): void {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.connect(), waitMs);
    this.#setPhase("waiting", { ...why, retryAt: Date.now() + waitMs });
  }

  /** In a browser a refused handshake looks like an absent server; a plain request to the same URL shows the status. */
  async #findRefusal(): Promise<void> {
    const url = this.#url.replace(/^ws/, "http");
    const ask = (what: string | URL): Promise<Response> =>
      fetch(what, { cache: "no-store", signal: AbortSignal.timeout(5000) });
    try {
      const { status, headers } = await ask(url);
      if (this.phase !== "waiting") return;
      if (status === 401 || status === 403) return this.close(REASONS[status], status);
      const seconds = Number(headers.get("retry-after"));
      if ((status === 429 || status === 503) && seconds > 0) {
        const waitMs = Math.min(seconds * 1000, this.settings.mostMs);
        if (Date.now() + waitMs > this.current.retryAt) this.#wait(waitMs, { code: status });
      }
    } catch {
      // No server is there, or CORS hides the answer from a page of another origin: the retry goes ahead.
      const { admitted, origin } = await ask(new URL("origin", url)).then((answer) => answer.json()).catch(() => ({}));
      if (admitted !== false || this.phase === "closed" || this.live) return;
      const reason = `the server does not admit pages of ${origin}: it needs --allow-origin ${origin}`;
      this.#setPhase(this.phase, { retryAt: this.current.retryAt, reason, code: 403 });
      if (!this.#isReported) this.events.notAdmitted(reason);
      this.#isReported = true;
    }
  }

  /** Checks for silence; to be called every second. */
  checkSilence(): void {
    if (!this.#socket) return;
    const now = nowMs();
    if (now - this.#checkedMs > 5000) {
      // This machine slept, not the server: data that it sent waits in the socket. A ping gives it another moment.
      this.#receivedMs = now;
      this.events.probe();
    }
    this.#checkedMs = now;
    const silentMs = now - this.#receivedMs;
    if (silentMs > Math.max(10_000, DEAD_HEARTBEATS * this.#heartbeatMs)) return this.fail("no answer");
    if (this.phase === "live" && silentMs > STALE_HEARTBEATS * this.#heartbeatMs) {
      this.#setPhase("stale", { reason: "no answer" });
      this.events.probe();
    }
  }

  #setPhase(phase: ConnectionPhase, change: Partial<Connection>): void {
    this.current = { ...this.current, retryAt: 0, ...change, phase };
    this.events.changed(this.current);
  }
}
