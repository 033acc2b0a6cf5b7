/** Tokens, against a fake server: what is sent when, and what is asked for again. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Authenticated, Client, ConnectOptions, TokenRequest } from "../src/types";
import { definition, FakeServer, quote, settle } from "./fake";

let server: FakeServer;
let client: Client;
let errors: string[];
let asked: TokenRequest[];
let authenticated: Authenticated[];
beforeEach(() => {
  vi.useFakeTimers();
  server = new FakeServer();
  [errors, asked, authenticated] = [[], [], []];
  vi.stubGlobal("fetch", async () => new Response(null, { status: 426 }));
});
afterEach(() => {
  client.close();
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

const REQUIRED = { auth: "required" };
const BTC = definition(1, "BTC-USD");

/** A client whose function returns token after token; an Error is thrown. */
async function open(tokens: (string | null | Error | Promise<string>)[], options: ConnectOptions = {}): Promise<void> {
  const token = (why: TokenRequest): any => {
    asked.push(why);
    const next = tokens.length > 1 ? tokens.shift() : tokens[0];
    if (next instanceof Error) throw next;
    return next;
  };
  client = server.client({ token, ...options });
  client.on("error", ({ code, message }) => errors.push(`${code}: ${message}`));
  client.on("authenticated", (identity) => authenticated.push(identity));
  await settle();
}

/** Lets seconds pass in which the server is not silent. */
async function live(seconds: number): Promise<void> {
  for (let second = 0; second < seconds; second++) {
    await settle(1000);
    server.last.packet([]);
  }
}

/** Waits for the next attempt to connect; returns the time that it took. */
async function nextAttempt(): Promise<number> {
  const [sockets, from] = [server.sockets.length, Date.now()];
  while (server.sockets.length === sockets && Date.now() < from + 60_000) await settle(10);
  return Date.now() - from;
}

/** Takes the request that presents a token, and accepts or refuses it. */
function answerAuth(answer: object, type = "authenticated"): string {
  const [{ op, id, token }] = server.last.takeRequests();
  expect(op).toBe("auth");
  server.last.sendControl({ type, id, user: "u1", dropped: [], ...answer });
  return token;
}

test("the token is presented after the welcome, and requests follow once it is accepted", async () => {
  await open(["secret-1"]);
  client.subscribe({ symbols: "BTC-USD" });
  await settle();
  expect([server.last.url, server.last.protocols]).toEqual(["ws://fake/v1/stream", "tickcast.v1"]);
  server.last.welcome(7, REQUIRED);
  expect(client.connection.phase).toBe("connecting");
  expect(answerAuth({ expires_in_s: 600 })).toBe("secret-1");
  await settle();
  expect(client.connection).toMatchObject({ phase: "live", user: "u1", login: "required" });
  expect(client.connection.expiresAt).toBe(Date.now() + 600_000);
  expect(server.last.takeRequests()).toMatchObject([{ op: "subscribe", symbols: ["BTC-USD"] }]);
  expect(asked).toEqual([{ reason: "connect", message: "" }]);
  expect(authenticated).toMatchObject([{ user: "u1", dropped: [] }]);
});

test("a server that identifies no clients is sent no token, one that serves some data without is", async () => {
  await open(["secret"]);
  server.last.welcome();
  await settle();
  expect(server.last.takeRequests()).toEqual([]);
  expect(client.connection).toMatchObject({ phase: "live", user: "", login: "none" });
  server.last.closeWith(1006);
  await settle(1);
  server.last.welcome(7, { auth: "optional" });
  expect(answerAuth({})).toBe("secret");
  await settle();
  expect(client.connection).toMatchObject({ phase: "live", user: "u1", login: "optional", expiresAt: 0 });
});

test("a client without a token is served what is open, and ends where a token is required", async () => {
  client = server.client();
  await settle();
  server.last.welcome(7, { auth: "optional" });
  expect(client.connection).toMatchObject({ phase: "live", user: "", login: "optional" });
  server.last.closeWith(1006);
  await settle(1);
  server.last.welcome(7, REQUIRED);
  await settle();
  expect(client.connection).toMatchObject({ phase: "closed", code: 4001, reason: "the server requires a token" });
});

test("a connection that a cookie has identified needs no token", async () => {
  await open(["secret"]);
  server.last.welcome(7, { user: "u1", expires_in_s: 60 });
  expect(server.last.takeRequests()).toEqual([]);
  expect(client.connection).toMatchObject({ phase: "live", user: "u1", login: "optional" });
});

test("a function without a token is asked again when the server requires one", async () => {
  let logIn!: (token: string) => void;
  await open([null, new Promise<string>((resolve) => (logIn = resolve))]);
  server.last.welcome(7, REQUIRED);
  await settle();
  expect(asked.map(({ reason }) => reason)).toEqual(["connect", "required"]);
  // No user logs in for a while: the function is waited for, and not called again.
  server.last.closeWith(4001, "no token within 5000 ms");
  await settle(120_000);
  expect([asked.length, server.sockets.length]).toEqual([2, 1]);
  logIn("secret");
  await settle();
  expect(server.sockets).toHaveLength(2);
  server.last.welcome(7, REQUIRED);
  expect(answerAuth({})).toBe("secret");
  expect(client.connection.phase).toBe("live");
});

test("a token that comes when the server has lost its patience is presented on the next connection", async () => {
  await open(["", "secret"]);
  server.last.welcome(7, REQUIRED);
  await settle();
  expect(server.last.takeRequests()).toMatchObject([{ op: "auth", token: "secret" }]);
  server.last.closeWith(4001, "no token within 5000 ms");
  await settle(1000);
  expect(asked.map(({ reason }) => reason)).toEqual(["connect", "required", "connect"]);
  server.last.welcome(7, REQUIRED);
  expect(answerAuth({})).toBe("secret");
  expect(client.connection.phase).toBe("live");
});

test("a token is renewed on the open connection before it expires", async () => {
  await open(["secret-1", "secret-2"]);
  server.last.welcome(7, REQUIRED);
  answerAuth({ expires_in_s: 60 });
  server.last.sendControl({ type: "expiring", in_s: 60 });
  server.last.sendControl({ type: "expiring", in_s: 60 });
  await settle();
  expect(answerAuth({ expires_in_s: 600 })).toBe("secret-2");
  await settle();
  expect(asked.map(({ reason }) => reason)).toEqual(["connect", "expiring"]);
  expect([server.sockets.length, client.connection.expiresAt - Date.now()]).toEqual([1, 600_000]);
  expect(errors).toEqual([]);
});

test("a function that throws is asked again with a back-off until the token has expired, and then for a connection", async () => {
  vi.spyOn(Math, "random").mockReturnValue(1);
  await open(["secret-1", new Error("the issuer is down")]);
  server.last.welcome(7, REQUIRED);
  answerAuth({ expires_in_s: 60 });
  server.last.sendControl({ type: "expiring", in_s: 60 });
  await live(60);
  // At 0, 1, 3, 7, 15 and 31 s.
  expect(asked).toHaveLength(1 + 6);
  expect(errors).toEqual(Array(6).fill("token: no token: Error: the issuer is down"));
  server.last.sendControl({ type: "closing", reason: "credentials_expired", reconnect_ms: 200 });
  server.last.closeWith(4001, "the token has expired");
  await settle(1000);
  expect(client.connection).toMatchObject({ phase: "waiting", reason: "the token has expired", code: 4001 });
  expect(asked.at(-1)).toEqual({ reason: "refused", message: "the token has expired" });
  expect(server.sockets).toHaveLength(1);
});

test("one token after the other that is refused ends the client after three, with the server's reason", async () => {
  await open(["secret-1", "secret-2", "secret-3", "secret-4"]);
  for (const at of [1, 2, 3]) {
    server.last.welcome(7, REQUIRED);
    expect(answerAuth({ code: "unauthorized", message: "token: not valid" }, "error")).toBe(`secret-${at}`);
    await settle(2000);
  }
  await settle(120_000);
  expect([server.sockets.length, asked.length]).toEqual([3, 3]);
  expect(asked[1]).toEqual({ reason: "refused", message: "token: not valid" });
  expect(client.connection).toMatchObject({ phase: "closed", code: 4001, reason: "token: not valid" });
  expect(errors).toEqual(["token: token: not valid", "token: token: not valid", "closed: token: not valid"]);
  expect(vi.getTimerCount()).toBe(0);
});

test("a token that never changes is refused once", async () => {
  await open([], { token: "secret" });
  server.last.welcome(7, REQUIRED);
  answerAuth({ code: "unauthorized", message: "token: expired" }, "error");
  await settle(60_000);
  expect(client.connection).toMatchObject({ phase: "closed", code: 4001, reason: "token: expired" });
  expect(server.sockets).toHaveLength(1);
});

test("keys that the server cannot read are waited for, without an end", async () => {
  vi.spyOn(Math, "random").mockReturnValue(1);
  await open(["secret"]);
  const waits: number[] = [];
  for (let attempt = 0; attempt < 8; attempt++) {
    server.last.welcome(7, REQUIRED);
    answerAuth({ code: "unavailable", message: "token: keys cannot be read" }, "error");
    waits.push(Math.round((await nextAttempt()) / 100) / 10);
  }
  expect(waits).toEqual([0, 0.5, 0.5, 0.5, 0.8, 1.1, 1.7, 2.6]);
  server.last.welcome(7, REQUIRED);
  answerAuth({});
  expect(client.connection.phase).toBe("live");
});

test.each([
  [4003, "the token is of another user than the connection"],
  [4003, "the token allows nothing of what was subscribed to"],
  [4001, "the credential was revoked"],
])("no reconnect after %i: %s", async (code, reason) => {
  await open(["secret"]);
  server.last.welcome(7, REQUIRED);
  answerAuth({});
  server.last.closeWith(code, reason);
  await settle(60_000);
  expect(client.connection).toMatchObject({ phase: "closed", code, reason });
  expect([server.sockets.length, asked.length, errors]).toEqual([1, 1, [`closed: ${reason}`]]);
});

test("a revoked token is not presented again, a refused renewal is asked for again", async () => {
  await open(["secret-1", "secret-2", "secret-3"]);
  server.last.welcome(7, REQUIRED);
  answerAuth({ expires_in_s: 60 });
  server.last.sendControl({ type: "expiring", in_s: 60 });
  await settle();
  expect(answerAuth({ code: "unauthorized", message: "token: expired" }, "error")).toBe("secret-2");
  await settle(2000);
  expect(asked.at(-1)).toEqual({ reason: "refused", message: "token: expired" });
  expect(answerAuth({ code: "unauthorized", message: "token: revoked" }, "error")).toBe("secret-3");
  expect(client.connection).toMatchObject({ phase: "closed", reason: "token: revoked" });
  expect(server.sockets).toHaveLength(1);
});

test("a function that returns the same token again and again is not asked in a loop", async () => {
  vi.spyOn(Math, "random").mockReturnValue(1);
  await open(["secret"]);
  server.last.welcome(7, REQUIRED);
  answerAuth({ expires_in_s: 60 });
  const until = Date.now() + 60_000;
  while (Date.now() < until) {
    server.last.sendControl({ type: "expiring", in_s: 60 });
    await settle(10);
    const [auth] = server.last.takeRequests();
    const left = Math.round((until - Date.now()) / 1000);
    if (auth) server.last.sendControl({ type: "authenticated", id: auth.id, user: "u1", expires_in_s: left, dropped: [] });
  }
  expect(asked.length).toBeLessThan(10);
});

test("what a new token drops is told, and what it allows is subscribed to", async () => {
  await open(["secret-1", "secret-2"]);
  const quotes = client.subscribe({ symbols: ["BTC-USD", "XAU"] });
  await settle();
  server.last.welcome(7, REQUIRED);
  answerAuth({ expires_in_s: 60 });
  const [{ id }] = server.last.takeRequests();
  const restricted = { denied: ["XAU"], limited: ["BTC-USD"], delayed: ["XAU"] };
  server.last.sendControl({ type: "subscribed", id, conflate_ms: 100, count: 1, unknown: [], ...restricted });
  server.last.packet([BTC, quote(1, 1, 100, 101)], { flags: 5 });
  await settle(20);
  expect(quotes).toMatchObject(restricted);
  expect(errors).toEqual([
    "denied: XAU: not for this client",
    "limited: BTC-USD: only a part is for this client",
    "delayed: XAU: this client's right is to delayed data, which is not served here",
  ]);
  server.last.sendControl({ type: "expiring", in_s: 60 });
  await settle();
  answerAuth({ dropped: ["BTC-USD"] });
  await settle();
  expect(authenticated.at(-1)).toEqual({ user: "u1", expiresAt: 0, dropped: ["BTC-USD"] });
  const [again] = server.last.takeRequests();
  expect(again).toMatchObject({ op: "subscribe", symbols: ["BTC-USD", "XAU"], channels: ["quote"] });
  const answer = { conflate_ms: 100, count: 1, unknown: [], denied: ["BTC-USD"] };
  server.last.sendControl({ type: "subscribed", id: again.id, ...answer });
  server.last.packet([definition(2, "XAU"), quote(2, 1, 5, 6)], { flags: 5 });
  await settle(20);
  expect(quotes).toMatchObject({ denied: ["BTC-USD"], limited: [], delayed: [] });
  expect([client.state("BTC-USD"), client.state("XAU")]).toEqual(["STALE", "LIVE"]);
});

test("a token that cannot be one is refused without its text", async () => {
  for (const token of ["a b", "ü", "x".repeat(8193)]) {
    expect(() => server.client({ token })).toThrow("token: ");
    expect(() => server.client({ token })).not.toThrow(token);
  }
  expect(() => server.client({ token: 1 as never })).toThrow("token: 1 is invalid: expected a token, or a function");
  await open([{} as string]);
  expect(errors.at(-1)).toContain("token: no token: TypeError: token: ");
  expect(server.sockets).toHaveLength(0);
});

test("requests of the HTTP API have the token, those to other servers have none", async () => {
  const requests: [string, string | null][] = [];
  let statuses = [200];
  vi.stubGlobal("fetch", async (url: URL, { headers }: RequestInit = {}) => {
    requests.push([url.href, new Headers(headers).get("authorization")]);
    return new Response(null, { status: statuses.shift() ?? 200 });
  });
  await open(["secret-1", "secret-2"]);
  await client.fetch("/v1/snapshot/BTC-USD");
  statuses = [401, 200];
  expect((await client.fetch("/v1/instruments", { headers: { accept: "a" } })).status).toBe(200);
  await client.fetch("https://elsewhere.example/v1/instruments");
  expect(requests).toEqual([
    ["http://fake/v1/snapshot/BTC-USD", "Bearer secret-1"],
    ["http://fake/v1/instruments", "Bearer secret-1"],
    ["http://fake/v1/instruments", "Bearer secret-2"],
    ["https://elsewhere.example/v1/instruments", null],
  ]);
  expect(asked.map(({ reason }) => reason)).toEqual(["connect", "refused"]);
});

test("of several channels, the one that is denied is found by asking for each", async () => {
  await open(["secret"]);
  const both = client.subscribe({ symbols: "BTC-USD", channels: ["quote", "book"] });
  await settle();
  server.last.welcome(7, REQUIRED);
  answerAuth({});
  const [{ id }] = server.last.takeRequests();
  const answer = { type: "subscribed", conflate_ms: 100, count: 1, unknown: [], denied: [] };
  server.last.sendControl({ ...answer, id, limited: ["BTC-USD"] });
  const again = server.last.takeRequests();
  expect(again).toMatchObject([
    { op: "subscribe", channels: ["quote"], symbols: ["BTC-USD"], conflate_ms: 100 },
    { op: "subscribe", channels: ["book"], symbols: ["BTC-USD"], conflate_ms: 100 },
  ]);
  server.last.sendControl({ ...answer, id: again[0].id });
  server.last.sendControl({ ...answer, id: again[1].id, denied: ["BTC-USD"] });
  server.last.packet([BTC, quote(1, 1, 100, 101)], { flags: 5 });
  await settle(20);
  expect(await both.ready).toMatchObject({ denied: [], limited: ["BTC-USD"] });
  expect(errors).toEqual(["limited: BTC-USD: only a part is for this client"]);
  expect(server.last.takeRequests()).toEqual([]);
  // A later token with the right: what is held goes on, the other channel begins.
  server.last.sendControl({ type: "expiring", in_s: 60 });
  await settle();
  answerAuth({ dropped: [] });
  await settle();
  const [book] = server.last.takeRequests();
  expect(book).toMatchObject({ op: "subscribe", channels: ["book"], symbols: ["BTC-USD"] });
  server.last.sendControl({ ...answer, id: book.id });
  server.last.packet([], { flags: 5 });
  await settle(20);
  expect([both.limited, client.state("BTC-USD")]).toEqual([[], "LIVE"]);
});
