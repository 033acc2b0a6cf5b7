/** The part of the public API about the connection and the identity of the client. */

/**
 * The phase of the connection.
 *
 * * `connecting`: a socket is being opened.
 * * `live`: the server's welcome has come, and it is not silent.
 * * `stale`: open, but nothing came for two and a half heartbeats; after four the client reconnects.
 * * `waiting`: lost; the next attempt is at {@link Connection.retryAt}.
 * * `idle`: the server closed a connection without subscriptions; the next subscription connects again.
 * * `closed`: final. By `client.close()`, by the signal, or because another attempt would be wrong (see `reason`).
 */
export type ConnectionPhase = "connecting" | "live" | "stale" | "waiting" | "idle" | "closed";

/** The connection, in {@link Client.connection} and the `connection` event. */
export interface Connection {
  readonly phase: ConnectionPhase;
  /** Why the last connection ended, as text for a status bar; empty while the connection is good. */
  readonly reason: string;
  /** The close code or HTTP status of the reason; 0 where there was none. */
  readonly code: number;
  /** Attempts since the stream was last live, with the present one. */
  readonly attempt: number;
  /** The time of the next attempt, ms since the Unix epoch; 0 where none is planned. */
  readonly retryAt: number;
  /** The server's epoch, which a restart changes; 0 before the first welcome. */
  readonly epoch: number;
  /** The server's version. */
  readonly version: string;
  /** The age of the data, in seconds, where the server serves it later; 0: live. */
  readonly delayS: number;
  /**
   * How the present connection continued the stream: `fresh` where there was nothing to continue, `pending` until the
   * server has answered, `replay` from history without a gap, `snapshot` where at least a part needed a snapshot.
   */
  readonly resumed: "fresh" | "pending" | "replay" | "snapshot";
  /** Who the client is to the server; empty for a server that does not know. */
  readonly user: string;
  /** When the token of the connection expires, ms since the Unix epoch; 0 where it does not, or where there is none. */
  readonly expiresAt: number;
  /** Whether the server takes tokens: `none` it identifies no clients, `optional` it serves some data without one. */
  readonly login: "none" | "optional" | "required";
}

/** Why a token is asked for. */
export interface TokenRequest {
  /**
   * `connect`: for a new connection. `required`: there was none, and the server needs one. `expiring`: the present one
   * expires soon. `refused`: the last one was refused, or has expired: the same one would be refused again.
   */
  readonly reason: "connect" | "required" | "expiring" | "refused";
  /** What the server said; empty for `connect` and `expiring`. */
  readonly message: string;
}

/** A token was accepted: the value of an `authenticated` event. */
export interface Authenticated {
  readonly user: string;
  /** See {@link Connection.expiresAt}. */
  readonly expiresAt: number;
  /** Names and patterns, or channels of them, that the former token allowed and this one does not. */
  readonly dropped: readonly string[];
}
