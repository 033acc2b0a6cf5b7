/** The login state in plain words. Pure. */

import type { Connection, SubscriptionResult } from "tickcast";
import { spanText } from "./format.ts";

/** What the state is made of. */
export interface LoginState {
  readonly connection: Pick<Connection, "phase" | "user" | "expiresAt" | "login">;
  /** The user has given a token on this page; otherwise a user is known by a cookie of the site. */
  readonly hasToken: boolean;
  /** The client waits for a token. */
  readonly isAsked: boolean;
}

/** The button's text: the user, or what there is to do; empty where the server identifies no clients. */
export function buttonText({ connection, isAsked }: LoginState): string {
  if (connection.user !== "") return connection.user;
  return isAsked || connection.login !== "none" ? "Log in" : "";
}

/** Who is logged in, and until when. */
export function stateText(state: LoginState, nowMs: number): string {
  const { connection, hasToken, isAsked } = state;
  const { user, login, phase, expiresAt } = connection;
  if (phase !== "live" && isAsked) return "Not logged in. This server needs a token or an API key.";
  if (user === "") {
    return login === "none" ? "This server does not ask who you are." : "Not logged in. You see what is open to all.";
  }
  const by = hasToken ? "" : ", by a cookie of this site";
  return `Logged in as ${user}${by}. ${expiryText(expiresAt, nowMs)}`;
}

function expiryText(expiresAt: number, nowMs: number): string {
  if (expiresAt === 0) return "This login does not expire.";
  const seconds = (expiresAt - nowMs) / 1000;
  return seconds > 0 ? `It expires in ${spanText(seconds)}.` : "It has expired: the server is about to disconnect.";
}

/** True in the last minute of a login that only the user can renew. */
export function needsRenewal({ connection, isAsked }: LoginState, nowMs: number): boolean {
  return isAsked && connection.user !== "" && connection.expiresAt > 0 && connection.expiresAt - nowMs < 90_000;
}

/** What of a pattern over all symbols is not shown; empty if all is. */
export function rightsText({ denied, limited, delayed }: Omit<SubscriptionResult, "unknown" | "conflateMs">): string {
  const parts = [];
  if (denied.length > 0) parts.push("No symbol is among your rights.");
  else if (limited.length > 0) parts.push("Some symbols or channels are not among your rights, and are not shown.");
  if (delayed.length > 0) parts.push("Your right to some of them is to delayed data, which is not served here.");
  return parts.join(" ");
}

/** Why an instrument has no depth; empty where it may have one. */
export function depthText({ denied, delayed }: Pick<SubscriptionResult, "denied" | "delayed">): string {
  if (delayed.length > 0) return "Your right is to delayed depth, which is not served here";
  return denied.length > 0 ? "The depth is not among your rights" : "";
}
