/**
 * One connection after another: opens, notices silence, and comes back.
 *
 * What always holds: after a loss the first try is immediate, each later one random below a bound that doubles, unless
 * the server said when to come back; the bound starts anew only after a stream that was live for a while. Nobody comes
 * back where that would be wrong: with credentials that were refused or have expired (4001, 4003, HTTP 401 and 403), or
 * after a flood (1008). A browser hides the status of a refused handshake, so it is asked for with a plain request.
 *
 * It knows nothing of records.
 */

import { NO_CONNECTION, nowMs, type Settings } from "./messages";
import type { Connection, ConnectionPhase, WebSocketConstructor, WebSocketLike } from "./types";

/** What codes mean to the one who looks at a page, where the server has not said it. */
const REASONS: Record<number, string> = {
  ...{ 1006: "connection lost", 4001: "credentials expired", 4003: "no longer entitled" },
  ...{ 401: "not authorised", 403: "forbidden" },
};

/** Heartbeats that may be missed before the connection counts as stale, and before it is given up. */
const STALE_BEATS = 2.5;
const DEAD_BEATS = 4;

export interface LinkEvents {
  changed(connection: Connection): void;
  /** A text of the server, or a packet. Throws where it cannot be read. */
  message(data: string | ArrayBuffer): void;
  /** The next URL is wanted: {@link Link.connectTo} is to be called. */
  url(): void;
  /** The socket is gone; called before the change of phase is told. */
  lost(): void;
  /** Nothing was heard for long: something is to be asked. */
  probe(): void;
}

export class Link {
  current = NO_CONNECTION;
  /** From the server's `closing`: when to come back. */
  hintMs = -1;
  #heartbeatMs = 5000;
  #socket: WebSocketLike | undefined;
  #url = "";
  #failures = 0;
  #heardMs = 0;
  #liveSinceMs = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #watchedMs = 0;

  constructor(
    readonly settings: Settings,
    readonly Socket: WebSocketConstructor,
    readonly events: LinkEvents,
  ) {}

  get phase(): ConnectionPhase {
    return this.current.phase;
  }

  get live(): boolean {
    return this.phase === "live" || this.phase === "stale";
  }

  /** Begins an attempt, at once: a wait is cut short. */
  connect(): void {
    if (this.#socket || this.phase === "closed") return;
    clearTimeout(this.#retry);
    this.hintMs = -1;
    this.#tell("connecting", { attempt: this.#failures + 1 });
    this.events.url();
  }

  /** Goes on with an attempt. */
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
    this.#heardMs = this.#watchedMs = nowMs();
  }

  /** The server has greeted us. */
  welcomed(by: Pick<Connection, "epoch" | "version" | "resumed">, heartbeatMs: number): void {
    this.#heartbeatMs = heartbeatMs;
    this.#liveSinceMs = nowMs();
    this.#tell("live", { ...by, reason: "", code: 0 });
  }

  /** How a part of the stream went on is known: one snapshot makes it one. */
  resumed(how: Connection["resumed"]): void {
    const { resumed } = this.current;
    if (resumed !== how && resumed !== "snapshot") this.#tell(this.phase, { resumed: how });
  }

  send(text: string): void {
    this.#socket?.send(text);
  }

  /** Ends this connection, and makes another. */
  fail(reason: string, code = 0): void {
    this.#drop();
    this.#again(reason, code);
  }

  /** Ends all. */
  close(reason = "closed", code = 0): void {
    if (this.phase === "closed") return;
    clearTimeout(this.#retry);
    this.#drop();
    this.#tell("closed", { reason, code });
  }

  #receive(data: string | ArrayBuffer): void {
    this.#heardMs = nowMs();
    if (this.phase === "stale") this.#tell("live", { reason: "" });
    this.events.message(data);
  }

  #drop(): void {
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = undefined;
    // A browser may wait long for the closing handshake of a dead peer; nothing more is wanted of this socket.
    socket.onmessage = socket.onclose = null;
    try {
      socket.close(1000);
    } catch {
      // Some implementations refuse to close what is not open yet; it is forgotten all the same.
    }
    this.events.lost();
  }

  #closed(code: number, said: string): void {
    const greeted = this.#liveSinceMs;
    this.#drop();
    const reason = said || REASONS[code] || `closed with ${code}`;
    if (code === 4001 || code === 4003) return this.close(reason, code);
    if (code === 1008) {
      // Silence is no offence: a laptop that slept comes back. A client that floods would flood again.
      if (/subscribed/.test(said)) return this.#tell("idle", { reason: "", code });
      if (!/received|ping/.test(said)) return this.close(reason, code);
    }
    this.#again(reason, code);
    if (!greeted) this.#askWhy();
  }

  #again(reason: string, code: number): void {
    if (this.phase === "closed") return;
    const { firstMs, mostMs, settledMs } = this.settings;
    if (this.#liveSinceMs && nowMs() - this.#liveSinceMs >= settledMs) this.#failures = 0;
    const bound = this.#failures && Math.min(mostMs, firstMs * 2 ** (this.#failures - 1));
    const waitMs = this.hintMs >= 0 ? this.hintMs : Math.random() * bound;
    this.#failures++;
    // Why the last good connection ended tells more than why an attempt after it failed.
    const why = this.#liveSinceMs || !this.current.reason ? { reason, code } : {};
    this.#liveSinceMs = 0;
    this.#wait(waitMs, why);
  }

  #wait(waitMs: number, why: Partial<Connection>): void {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.connect(), waitMs);
    this.#tell("waiting", { ...why, retryAt: Date.now() + waitMs });
  }

  /** A refused handshake and a server that is not there look alike in a browser; a plain request tells them apart. */
  async #askWhy(): Promise<void> {
    const url = this.#url.replace(/^ws/, "http");
    try {
      const { status, headers } = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (this.phase !== "waiting") return;
      if (status === 401 || status === 403) return this.close(REASONS[status], status);
      const seconds = Number(headers.get("retry-after"));
      if ((status === 429 || status === 503) && seconds > 0) {
        const waitMs = Math.min(seconds * 1000, this.settings.mostMs);
        if (Date.now() + waitMs > this.current.retryAt) this.#wait(waitMs, { code: status });
      }
    } catch {
      // Nobody is there, or another origin does not let us read the answer: it is tried again.
    }
  }

  /** Listens for silence; to be called every second. */
  look(): void {
    if (!this.#socket) return;
    const now = nowMs();
    if (now - this.#watchedMs > 5000) {
      // We were asleep, not the server: what it sent waits in the socket. It gets a moment, and a question.
      this.#heardMs = now;
      this.events.probe();
    }
    this.#watchedMs = now;
    const silent = now - this.#heardMs;
    if (silent > Math.max(10_000, DEAD_BEATS * this.#heartbeatMs)) return this.fail("no answer");
    if (this.phase === "live" && silent > STALE_BEATS * this.#heartbeatMs) {
      this.#tell("stale", { reason: "no answer" });
      this.events.probe();
    }
  }

  #tell(phase: ConnectionPhase, change: Partial<Connection>): void {
    this.current = { ...this.current, retryAt: 0, ...change, phase };
    this.events.changed(this.current);
  }
}
