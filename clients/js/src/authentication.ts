/**
 * The client's identity on the stream side: presents the token after the server's welcome, asks the page side for the
 * next one before it expires, and decides whether a refused one is worth another attempt.
 *
 * What always holds: one token is asked for at a time, and no sooner than a back-off after a failure; after
 * {@link Settings.tokenTries} refusals in a row, and after a revocation, the client ends. A server that identifies no
 * clients is sent no token. No text has a token.
 */

import type { ClientError, TokenRequest } from "./types";
import type { Settings } from "./messages";

const FIRST_MS = 1000;
const MOST_MS = 30_000;
const CONNECT: TokenRequest = { reason: "connect", message: "" };
/** A token that does not last longer than the one before by this is no progress. */
const PROGRESS_MS = 1000;

export interface AuthenticationEvents {
  /** A token is needed; {@link Authentication.received} is to be called with it. */
  ask(why: TokenRequest): void;
  /** Sends a request; returns its id. */
  request(request: object): number;
  error(code: ClientError["code"], message: string): void;
  /** The connection cannot be used: the client reconnects, or ends for good. */
  failed(message: string, isFinal: boolean): void;
}

export class Authentication {
  /** Why the next token is asked for. */
  why: TokenRequest = CONNECT;
  /** The welcome of a connection that is not authenticated yet. */
  #greeting: any = null;
  #secret = "";
  #requestId = 0;
  /** Refused tokens since the last one that was accepted; refreshes without progress. */
  #refusals = 0;
  #attempts = 0;
  #expiresAt = 0;
  #asking = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly settings: Settings,
    readonly events: AuthenticationEvents,
  ) {}

  /** The token for a new connection. */
  present(secret = ""): void {
    this.#secret = secret;
  }

  /** Returns the welcome where the connection can be used as it is. */
  greeted(greeting: any): any {
    if (!greeting.auth || (greeting.auth !== "required" && !this.#secret)) return this.#accepted(greeting);
    this.#greeting = greeting;
    if (this.#secret) this.#send();
    else if (this.settings.tokenTries) this.#ask("required", "the server requires a token");
    else this.events.failed("the server requires a token", true);
  }

  /** The token that was asked for on an open connection, or the problem of the application's function. */
  received(secret = "", problem = ""): void {
    if (!this.#asking) return;
    this.#asking = false;
    this.#secret = secret;
    if (secret) return this.#send();
    this.#again(problem || "no token", this.why.reason);
  }

  /** The server has announced that the token expires. */
  expiring(): void {
    this.#retry("expiring", "");
  }

  /** Returns the welcome, with the identity, where the connection is authenticated now. */
  authenticated(message: any): any {
    if (message.id !== this.#requestId) return;
    const greeting = this.#greeting;
    this.#greeting = null;
    const { user, expires_in_s } = message;
    this.#accepted(message);
    return greeting && { ...greeting, user, expires_in_s };
  }

  /** True if an error was the answer to a token. */
  refused({ id, code, message }: any): boolean {
    if (!id || id !== this.#requestId) return false;
    this.#requestId = 0;
    const isRevoked = /revoked/.test(message);
    const isInvalid = code === "unauthorized";
    if (isRevoked || (isInvalid && ++this.#refusals >= this.settings.tokenTries)) {
      this.events.failed(message, true);
    } else if (!this.#greeting) {
      this.#again(message, isInvalid ? "refused" : this.why.reason);
    } else {
      if (isInvalid) this.why = { reason: "refused", message };
      this.events.error("token", message);
      this.events.failed(message, false);
    }
    return true;
  }

  /** The server has closed with 4001: true if another token may help. */
  expired(reason: string): boolean {
    if (/revoked/.test(reason) || this.settings.tokenTries < 2) return false;
    if (!this.#greeting) this.why = { reason: "refused", message: reason };
    return true;
  }

  /** The connection is lost, or the client ends. */
  lost(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#greeting = null;
    this.#asking = false;
    // What was needed on this connection says nothing of the next one; a refusal does.
    if (this.why.reason !== "refused") this.why = CONNECT;
    this.#requestId = this.#attempts = this.#expiresAt = 0;
  }

  #accepted(message: any): any {
    const expiresAt = message.expires_in_s === undefined ? Infinity : Date.now() + message.expires_in_s * 1000;
    if (expiresAt > this.#expiresAt + PROGRESS_MS) this.#attempts = 0;
    this.#expiresAt = expiresAt;
    this.#refusals = 0;
    this.why = CONNECT;
    return message;
  }

  #send(): void {
    this.#requestId = this.events.request({ op: "auth", token: this.#secret });
  }

  #again(message: string, reason: TokenRequest["reason"]): void {
    this.events.error("token", message);
    this.#retry(reason, message);
  }

  /** Asks for a token: at once the first time, then after a random time below a bound that doubles. */
  #retry(reason: TokenRequest["reason"], message: string): void {
    if (this.#asking || this.#timer) return;
    if (this.settings.tokenTries < 2) return this.events.error("token", "the token expires, and there is no other");
    const bound = this.#attempts && Math.min(MOST_MS, FIRST_MS * 2 ** (this.#attempts - 1));
    this.#attempts++;
    const ask = (): void => {
      this.#timer = undefined;
      this.#ask(reason, message);
    };
    if (bound) this.#timer = setTimeout(ask, bound / 2 + (Math.random() * bound) / 2);
    else ask();
  }

  #ask(reason: TokenRequest["reason"], message: string): void {
    this.#asking = true;
    this.why = { reason, message };
    this.events.ask(this.why);
  }
}
