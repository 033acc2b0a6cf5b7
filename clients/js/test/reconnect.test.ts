/** Loss of the connection and reconnecting, against a fake server. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Gap } from "../src/types";
import { book, definition, FakeServer, gap, quote, settle, status, trade } from "./fake";

let server: FakeServer;
let statuses: (number | "unreachable")[];
/** What the server says of the page's origin; undefined where no server is there, or an old one. */
let admission: object | undefined;
beforeEach(() => {
  vi.useFakeTimers();
  server = new FakeServer();
  statuses = [];
  admission = undefined;
  // The answers to plain requests to the stream's path, in order; 426 is the server's own.
  vi.stubGlobal("fetch", async (url: string | URL) => {
    if (`${url}` === "http://fake/v1/origin") {
      if (admission === undefined) throw new TypeError("no connection");
      return Response.json(admission);
    }
    const status = statuses.shift() ?? 426;
    if (status === "unreachable") throw new TypeError("no connection");
    return new Response(null, { status, headers: status === 503 ? { "retry-after": "7" } : {} });
  });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

const BTC = definition(1, "BTC-USD");

test("the first attempt is immediate, later ones are random below half of the outage so far", async () => {
  const chance = vi.spyOn(Math, "random").mockReturnValue(1);
  const client = server.client();
  await settle();
  const first = Date.now();
  const waits: number[] = [];
  for (let attempt = 0; attempt < 16; attempt++) {
    const before = server.sockets.length;
    server.last.closeWith(1006);
    const waitMs = client.connection.retryAt - Date.now();
    const half = Math.min(30_000, Math.max(500, (Date.now() - first) / 2));
    expect(Math.abs(waitMs - (attempt > 0 ? half : 0))).toBeLessThanOrEqual(1);
    waits.push(waitMs);
    while (server.sockets.length === before) await settle(10);
  }
  expect([waits[0], waits[2], waits.at(-1)]).toEqual([0, 500, 30_000]);
  chance.mockReturnValue(0.5);
  server.last.closeWith(1006);
  expect(client.connection.retryAt - Date.now()).toBe(15_000);
  client.close();
});

test("the age of the data is that of the last welcome", async () => {
  const client = server.client();
  const seen: number[] = [];
  client.on("connection", ({ delayS }) => seen.push(delayS));
  await settle();
  expect(client.connection.delayS).toBe(0);
  server.last.welcome(7, { delay_s: 900 });
  await settle();
  expect(client.connection.delayS).toBe(900);
  // What is on the page meanwhile is as old as before.
  server.last.closeWith(1006);
  expect(client.connection).toMatchObject({ phase: "waiting", delayS: 900 });
  await settle(1);
  server.last.welcome(8);
  await settle();
  expect(client.connection).toMatchObject({ phase: "live", delayS: 0 });
  expect([...new Set(seen)]).toEqual([900, 0]);
  client.close();
});

test("only a stream that was live for a while resets the bound", async () => {
  vi.spyOn(Math, "random").mockReturnValue(1);
  const client = server.client();
  await settle();
  const waitAfter = async (liveMs: number): Promise<number> => {
    server.last.welcome();
    for (let ms = 0; ms < liveMs; ms += 1000) {
      await settle(1000);
      server.last.packet([]);
    }
    server.last.closeWith(1006);
    const waitMs = client.connection.retryAt - Date.now();
    await settle(waitMs);
    return waitMs;
  };
  expect(await waitAfter(0)).toBe(0);
  expect(await waitAfter(1000)).toBe(500);
  // An outage of 2.5 s so far, with two short streams in it.
  expect(await waitAfter(1000)).toBe(1250);
  expect(await waitAfter(6000)).toBe(0);
  client.close();
});

test("the server's reconnect delay is used", async () => {
  const client = server.client();
  await settle();
  server.last.welcome();
  server.last.sendControl({ type: "closing", reason: "going_away", reconnect_ms: 1500 });
  server.last.closeWith(1001, "the server is stopping");
  expect(client.connection).toMatchObject({ phase: "waiting", reason: "the server is stopping", code: 1001 });
  expect(client.connection.retryAt - Date.now()).toBe(1500);
  client.close();
});

test.each([
  [4001, "", "credentials expired"],
  [4003, "", "no longer entitled"],
  [4005, "a newer session of this user has begun", "a newer session of this user has begun"],
  [1008, "more than 50 requests a second", "more than 50 requests a second"],
])("no reconnect after close code %i %s", async (code, text, reason) => {
  const client = server.client();
  const errors: string[] = [];
  client.on("error", (error) => errors.push(error.code));
  const subscription = client.subscribe({ symbols: "BTC-USD" });
  await settle();
  server.last.welcome();
  server.last.closeWith(code, text);
  await settle(120_000);
  expect(server.sockets).toHaveLength(1);
  expect(client.connection).toMatchObject({ phase: "closed", code, reason });
  expect(await client.closed).toMatchObject({ code });
  expect(errors).toEqual(["closed"]);
  expect(vi.getTimerCount()).toBe(0);
  await expect(subscription.ready).rejects.toThrow(reason);
});

test.each([["nothing was received for too long, not even a pong"], ["a ping was not answered within 20000 ms"]])(
  "reconnects after 1008 for silence: %s",
  async (text) => {
    const client = server.client();
    await settle();
    server.last.welcome();
    server.last.closeWith(1008, text);
    await settle(1);
    expect(server.sockets).toHaveLength(2);
    client.close();
  },
);

test("a connection closed without subscriptions is reopened by the next one", async () => {
  const client = server.client();
  await settle();
  server.last.welcome();
  server.last.closeWith(1008, "nothing was subscribed within 60000 ms");
  await settle(60_000);
  expect([server.sockets.length, client.connection.phase]).toEqual([1, "idle"]);
  client.subscribe({ symbols: "BTC-USD" });
  await settle();
  server.last.welcome();
  expect(server.last.takeRequests()).toMatchObject([{ op: "subscribe", symbols: ["BTC-USD"] }]);
  client.close();
});

test.each([
  [401, "not authorised"],
  [403, "forbidden"],
])("a handshake refused with %i closes the client", async (code, reason) => {
  statuses = [code];
  const client = server.client();
  await settle();
  server.last.closeWith(1006);
  await settle(60_000);
  expect(client.connection).toMatchObject({ phase: "closed", code, reason });
  expect(server.sockets.length).toBeLessThanOrEqual(2);
});

test("an unreachable server is retried, a full one after its delay", async () => {
  vi.spyOn(Math, "random").mockReturnValue(1);
  statuses = ["unreachable", 503];
  const client = server.client();
  await settle();
  server.last.closeWith(1006);
  await settle(1);
  expect(server.sockets).toHaveLength(2);
  server.last.closeWith(1006);
  await settle(1);
  expect(Math.round((client.connection.retryAt - Date.now()) / 1000)).toBe(7);
  await settle(6000);
  expect(server.sockets).toHaveLength(2);
  await settle(1000);
  expect(server.sockets).toHaveLength(3);
  client.close();
});

test("a page that the server does not admit is told so once for an outage, with the flag, and tries on", async () => {
  const lines = vi.spyOn(console, "error").mockImplementation(() => {});
  const page = "http://localhost:5173";
  const refuse = async (): Promise<void> => {
    statuses = ["unreachable"];
    server.last.closeWith(1006);
    await settle(600);
  };
  const client = server.client();
  const errors: string[] = [];
  client.on("error", ({ code, message }) => errors.push(`${code}: ${message}`));
  await settle();
  admission = { origin: page, admitted: false };
  for (const _ of [1, 2, 3]) await refuse();
  const text = `the server does not admit pages of ${page}: it needs --allow-origin ${page}`;
  expect(errors).toEqual([`origin: ${text}`]);
  expect(client.connection).toMatchObject({ reason: text, code: 403 });
  expect(lines).toHaveBeenCalledExactlyOnceWith(`tickcast: ${text}`);
  expect(server.sockets).toHaveLength(4);
  server.last.welcome();
  expect(client.connection).toMatchObject({ phase: "live", reason: "", code: 0 });
  await settle(5000);
  server.last.closeWith(1006);
  await settle(1);
  await refuse();
  expect(errors).toHaveLength(2);
  client.close();
});

test.each([[undefined], [{ origin: "http://a.example", admitted: true }]])(
  "a server that is away, or admits the page, is no matter of its origin: %j",
  async (answer) => {
    admission = answer;
    statuses = ["unreachable"];
    const client = server.client();
    const errors: unknown[] = [];
    client.on("error", (error) => errors.push(error));
    await settle();
    server.last.closeWith(1006);
    await settle(600);
    expect(errors).toEqual([]);
    expect(client.connection).toMatchObject({ reason: "connection lost", code: 1006 });
    client.close();
  },
);

test("reconnect() connects at once while waiting and silent, the next attempts follow soon, and it disturbs no stream", async () => {
  vi.spyOn(Math, "random").mockReturnValue(1);
  statuses = Array(99).fill("unreachable");
  const client = server.client();
  await settle();
  while (server.sockets.length < 12) {
    if (server.last.readyState === 0) server.last.closeWith(1006);
    await settle(100);
  }
  server.last.closeWith(1006);
  expect(client.connection.retryAt - Date.now()).toBeGreaterThan(10_000);
  client.reconnect();
  await settle();
  expect([server.sockets.length, client.connection.phase, client.connection.attempt]).toEqual([13, "connecting", 1]);
  client.reconnect();
  await settle();
  expect(server.sockets).toHaveLength(13);
  server.last.closeWith(1006);
  await settle(1);
  server.last.closeWith(1006);
  expect(client.connection.retryAt - Date.now()).toBe(500);
  await settle(500);
  server.last.welcome();
  client.reconnect();
  await settle();
  expect([server.sockets.length, client.connection.phase]).toEqual([15, "live"]);
  await settle(4000);
  expect(client.connection.phase).toBe("stale");
  client.reconnect();
  await settle();
  expect([server.sockets.length, client.connection.phase]).toEqual([16, "connecting"]);
  client.close();
  client.reconnect();
  await settle(1000);
  expect([server.sockets.length, client.connection.phase]).toEqual([16, "closed"]);
});

test("a lost stream resumes names before patterns, longer patterns first", async () => {
  const client = server.client();
  client.subscribe({ symbols: "*", conflateMs: 1000 });
  client.subscribe({ symbols: "B*", conflateMs: 500 });
  client.subscribe({ symbols: ["BTC-USD", "ETH-USD"], channels: ["quote", "trade"], conflateMs: 100 });
  await settle();
  server.last.welcome();
  server.last.grant([BTC], { position: 10 });
  server.last.packet([quote(1, 1, 5, 6)], { position: 42 });
  server.last.closeWith(1006);
  await settle(1);
  server.last.welcome();
  const token = { epoch: 7, position: 42 };
  expect(server.last.takeRequests()).toMatchObject([
    { op: "resume", symbols: ["BTC-USD", "ETH-USD"], channels: ["quote", "trade"], conflate_ms: 100, ...token },
    { op: "resume", symbols: ["B*"], channels: ["quote"], conflate_ms: 500, ...token },
    { op: "resume", symbols: ["*"], channels: ["quote"], conflate_ms: 1000, ...token },
  ]);
  client.close();
});

test("books of another depth begin anew behind a replay, and the rest goes on", async () => {
  const client = server.client();
  client.subscribe({ symbols: "BTC-USD", channels: ["book", "trade"] });
  await settle();
  const reconnected = async (more: object): Promise<any[]> => {
    server.last.welcome();
    const [{ op, id }] = server.last.takeRequests();
    const type = op === "resume" ? "resumed" : "subscribed";
    server.last.sendControl({ type, id, how: "replay", from: 11, conflate_ms: 100, count: 1, unknown: [], ...more });
    server.last.packet([BTC], { flags: op === "resume" ? 6 : 5, position: 10 });
    const requests = server.last.takeRequests();
    server.last.grant([BTC], { position: 12 });
    server.last.closeWith(1006);
    await settle(1000);
    return requests;
  };
  expect(await reconnected({ book_depth: 5 })).toEqual([]);
  expect(await reconnected({ book_depth: 5 })).toEqual([]);
  expect(await reconnected({})).toMatchObject([
    { op: "unsubscribe", channels: ["book"], symbols: ["BTC-USD"] },
    { op: "subscribe", channels: ["book"], symbols: ["BTC-USD"] },
  ]);
  expect(await reconnected({})).toEqual([]);
  client.close();
});

test("an incomplete snapshot is requested again, the rest resumes", async () => {
  const client = server.client();
  client.subscribe({ symbols: "BTC-USD" });
  await settle();
  server.last.welcome();
  server.last.grant([BTC], { position: 10 });
  client.subscribe({ symbols: "ETH-USD" });
  await settle();
  const [{ id }] = server.last.takeRequests();
  server.last.sendControl({ type: "subscribed", id, conflate_ms: 100, count: 1, unknown: [], denied: [] });
  // During the second snapshot: this packet's position does not cover the records still missing.
  server.last.packet([definition(2, "ETH-USD")], { flags: 1, position: 30 });
  server.last.closeWith(1006);
  await settle(1);
  server.last.welcome();
  expect(server.last.takeRequests()).toMatchObject([
    { op: "resume", symbols: ["BTC-USD"], position: 10 },
    { op: "subscribe", symbols: ["ETH-USD"] },
  ]);
  client.close();
});

test("an interrupted replay is requested again from its token", async () => {
  const client = server.client();
  client.subscribe({ symbols: "BTC-USD", channels: "trade" });
  await settle();
  server.last.welcome();
  server.last.grant([BTC, trade(1, 1, 1)], { position: 10 });
  server.last.closeWith(1006);
  await settle(1);
  server.last.welcome();
  const [{ id }] = server.last.takeRequests();
  server.last.sendControl({ type: "resumed", id, how: "replay", from: 11, conflate_ms: 100, count: 1, unknown: [] });
  server.last.packet([BTC, trade(1, 2, 1)], { flags: 2, position: 20 });
  server.last.closeWith(1006);
  await settle(1000);
  server.last.welcome();
  expect(server.last.takeRequests()).toMatchObject([{ op: "resume", position: 10 }]);
  client.close();
});

test("after a restart: STALE, RESYNCING, LIVE, and rows keep their symbols though ids change", async () => {
  const client = server.client();
  const seen: string[] = [];
  const gaps: Gap[] = [];
  client.on("state", ({ symbol, state }) => seen.push(`${symbol} ${state}`));
  client.on("gap", (one) => gaps.push(one));
  client.subscribe({ symbols: ["BTC-USD", "ETH-USD"], channels: ["quote", "trade", "book"] });
  await settle();
  server.last.welcome(7);
  const ETH = definition(2, "ETH-USD");
  const before = [quote(1, 900, 100, 101), quote(2, 800, 50, 51), trade(1, 70, 100), book(1, 9, "S", [[100, 1, "B"]])];
  server.last.grant([BTC, ETH, ...before]);
  await settle();
  expect(seen).toEqual(["BTC-USD LIVE", "ETH-USD LIVE"]);
  server.last.closeWith(1006);
  await settle(0);
  expect(seen.slice(2)).toEqual(["BTC-USD STALE", "ETH-USD STALE"]);
  await settle(1);
  server.last.welcome(8);
  await settle();
  expect(seen.slice(4)).toEqual(["BTC-USD RESYNCING", "ETH-USD RESYNCING"]);
  expect(client.quotes.bidPx[0]).toBe(100);
  const after = [quote(2, 1, 110, 111), quote(1, 1, 60, 61), book(2, 1, "S", [[110, 2, "B"]])];
  const requests = server.last.grant([definition(2, "BTC-USD"), definition(1, "ETH-USD"), ...after], { epoch: 8 });
  expect(requests).toMatchObject([{ op: "subscribe" }]);
  await settle();
  expect(seen.slice(6)).toEqual(["BTC-USD LIVE", "ETH-USD LIVE"]);
  expect([client.quotes.bidPx[0], client.quotes.bidPx[1]]).toEqual([110, 60]);
  expect(client.book("BTC-USD")!.bids.px[0]).toBe(110);
  expect(gaps).toMatchObject([{ symbol: "BTC-USD", channel: "trade", from: 0, to: 0, reason: "resync" }]);
  expect(client.connection).toMatchObject({ epoch: 8, resumed: "snapshot" });
  client.close();
});

test("after a restart former values are cleared, and books start empty", async () => {
  const client = server.client();
  client.subscribe({ symbols: ["BTC-USD", "MINE"], channels: ["quote", "trade", "ticker", "book"] });
  await settle();
  server.last.welcome(7);
  const before = [quote(1, 9, 100, 101), trade(1, 7, 100), book(1, 9, "S", [[100, 1, "B"]]), quote(2, 9, 5, 6)];
  server.last.grant([BTC, definition(2, "MINE"), ...before]);
  await settle();
  server.last.closeWith(1006);
  await settle(1);
  server.last.welcome(8);
  await settle();
  expect([client.quotes.bidPx[1], client.state(1)]).toEqual([5, "RESYNCING"]);
  server.last.grant([BTC, book(1, 1, "D", [[90, 2, "B"]])], { epoch: 8, unknown: ["MINE"] });
  await settle();
  expect(client.state("BTC-USD")).toBe("LIVE");
  const { quotes, lastTrades } = client;
  expect([quotes.bidPx[0], quotes.sequence[0], quotes.recvMs[0]]).toEqual([NaN, 0, 0]);
  expect([lastTrades.px[0], lastTrades.sequence[0]]).toEqual([NaN, 0]);
  expect([...client.book(0)!.bids.px]).toEqual([90]);
  expect([client.quotes.bidPx[1], client.state("MINE")]).toEqual([5, "UNKNOWN"]);
  server.last.packet([quote(1, 1, 11, 12)], { epoch: 8 });
  server.last.packet([BTC], { epoch: 8 });
  await settle();
  expect(client.quotes.bidPx[0]).toBe(11);
  client.close();
});

test("after a restart undelivered values of the former epoch are dropped", async () => {
  const frames: ((now: number) => void)[] = [];
  vi.stubGlobal("requestAnimationFrame", (callback: (now: number) => void) => frames.push(callback));
  vi.stubGlobal("cancelAnimationFrame", () => {});
  const client = server.client();
  client.subscribe({ symbols: "BTC-USD", channels: ["quote", "trade"] });
  await settle();
  server.last.welcome(7);
  server.last.grant([BTC, quote(1, 9, 100, 101), trade(1, 7, 100)]);
  server.last.closeWith(1006);
  await settle(1);
  server.last.welcome(8);
  server.last.grant([BTC], { epoch: 8 });
  for (const frame of frames.splice(0)) frame(0);
  expect([client.quotes.bidPx[0], client.lastTrades.px[0], client.state(0)]).toEqual([NaN, NaN, "LIVE"]);
  expect(client.stats.tradesDropped).toBe(1);
  client.close();
});

test("after a restart an instrument that is not defined yet is UNKNOWN", async () => {
  const client = server.client();
  client.subscribe({ symbols: ["BTC-USD", "MINE"] });
  await settle();
  server.last.welcome(7);
  server.last.grant([BTC, definition(2, "MINE")]);
  server.last.closeWith(1006);
  await settle(1);
  server.last.welcome(8);
  server.last.grant([BTC], { epoch: 8, unknown: ["MINE"] });
  await settle();
  expect([client.state("BTC-USD"), client.state("MINE")]).toEqual(["LIVE", "UNKNOWN"]);
  await settle(1100);
  server.last.grant([definition(9, "MINE")], { epoch: 8 });
  await settle();
  expect(client.state("MINE")).toBe("LIVE");
  client.close();
});

test("so it is where a pattern covers it: RESYNCING ends with the snapshot that does not have it", async () => {
  const client = server.client();
  const seen: string[] = [];
  client.on("state", ({ symbol, state }) => symbol === "MINE" && seen.push(state));
  client.subscribe({ symbols: "*" });
  await settle();
  server.last.welcome(7);
  server.last.grant([BTC, definition(2, "MINE"), quote(2, 1, 5, 6)]);
  await settle();
  server.last.closeWith(1006);
  await settle(1);
  server.last.welcome(8);
  await settle();
  server.last.grant([BTC], { epoch: 8 });
  await settle();
  expect(seen).toEqual(["LIVE", "STALE", "RESYNCING", "UNKNOWN"]);
  expect([client.state("BTC-USD"), client.quotes.bidPx[1]]).toEqual(["LIVE", 5]);
  server.last.packet([definition(9, "MINE"), quote(9, 1, 7, 8)], { epoch: 8 });
  await settle();
  expect([client.state("MINE"), client.quotes.bidPx[1]]).toEqual(["LIVE", 7]);
  client.close();
});

test("a snapshot instead of a replay reports a gap in the trades", async () => {
  const client = server.client();
  const gaps: Gap[] = [];
  client.on("gap", (one) => gaps.push(one));
  client.subscribe({ symbols: "BTC-USD", channels: "trade" });
  await settle();
  server.last.welcome();
  server.last.grant([BTC, trade(1, 5, 1)]);
  server.last.closeWith(1006);
  await settle(1);
  server.last.welcome();
  server.last.grant([BTC, trade(1, 20, 1, 0xa0)], { how: "snapshot" });
  await settle();
  expect(gaps).toMatchObject([{ from: 6, to: 19, reason: "resync" }]);
  expect(client.connection.resumed).toBe("snapshot");
  client.close();
});

test("resumed is reported when known, and an overtaken replay is a snapshot", async () => {
  vi.spyOn(Math, "random").mockReturnValue(0);
  const client = server.client();
  const seen: string[] = [];
  client.on("connection", ({ phase, resumed }) => seen.push(`${phase} ${resumed}`));
  client.subscribe({ symbols: "BTC-USD", conflateMs: 50 });
  client.subscribe({ symbols: "B*", conflateMs: 500 });
  await settle();
  server.last.welcome();
  server.last.grant([BTC]);
  server.last.closeWith(1006);
  await settle(1);
  seen.length = 0;
  server.last.welcome();
  expect(seen).toEqual(["live pending"]);
  const answer = (id: number, how: string): void =>
    server.last.sendControl({ type: "resumed", id, how, from: 101, conflate_ms: 100, count: 1, unknown: [] });
  const [one, other] = server.last.takeRequests();
  answer(one.id, "replay");
  answer(one.id, "snapshot");
  answer(other.id, "replay");
  expect(seen.slice(1)).toEqual(["live replay", "live snapshot"]);
  server.last.packet([BTC], { flags: 5 });
  await settle();
  expect(client.state("BTC-USD")).toBe("LIVE");
  server.last.closeWith(1006);
  await settle(1);
  seen.length = 0;
  server.last.welcome();
  server.last.grant([BTC]);
  expect(seen).toEqual(["live pending", "live replay"]);
  server.last.closeWith(1006);
  await settle(1);
  seen.length = 0;
  server.last.welcome(8);
  expect(seen).toEqual(["live snapshot"]);
  client.close();
});

test("silence of two and a half heartbeats is STALE, of four a reconnect", async () => {
  const client = server.client();
  client.subscribe({ symbols: "BTC-USD" });
  await settle();
  server.last.welcome();
  server.last.grant([BTC]);
  await settle(2000);
  expect(client.connection.phase).toBe("live");
  await settle(1001);
  expect([client.connection.phase, client.state("BTC-USD")]).toEqual(["stale", "STALE"]);
  server.last.packet([]);
  await settle();
  expect([client.connection.phase, client.state("BTC-USD")]).toEqual(["live", "LIVE"]);
  await settle(11_000);
  expect(server.sockets).toHaveLength(2);
  client.close();
});

test("invalid bytes are reported and cause a reconnect", async () => {
  const client = server.client();
  const errors: string[] = [];
  client.on("error", ({ code }) => errors.push(code));
  client.subscribe({ symbols: "BTC-USD" });
  await settle();
  server.last.welcome();
  server.last.packet([quote(9, 1, 1, 1)]);
  await settle(1);
  expect(errors).toEqual(["protocol"]);
  expect(server.sockets).toHaveLength(2);
  client.close();
});

test("the URL function is called before each attempt", async () => {
  let count = 0;
  const client = server.client({ url: async () => `http://fake?token=${++count}` });
  await settle();
  server.last.closeWith(1006);
  await settle(1);
  expect(server.sockets.map(({ url, protocols }) => [url, protocols])).toEqual([
    ["ws://fake/v1/stream?token=1", "tickcast.v1"],
    ["ws://fake/v1/stream?token=2", "tickcast.v1"],
  ]);
  client.close();
});

test("a halted feed makes its instruments HALTED", async () => {
  const client = server.client();
  client.subscribe({ symbols: "BTC-USD" });
  await settle();
  server.last.welcome();
  server.last.grant([BTC, status(0, "H")]);
  await settle();
  expect(client.state("BTC-USD")).toBe("HALTED");
  client.close();
});

test.each([
  ["a Gap", gap(1, 2, 2, 2 ** 53)],
  ["a quote", quote(1, 2 ** 53, 6, 7)],
  ["a book", book(1, 2 ** 48, "S", [[5, 1, "B"]])],
])("the sequence of %s that no server assigns is an error with a snapshot, and freezes nothing", async (_, bad) => {
  const client = server.client({ pull: "immediate" });
  const errors: string[] = [];
  client.on("error", ({ code, message }) => errors.push(`${code}: ${message}`));
  client.subscribe({ symbols: "BTC-USD", channels: ["quote", "trade", "book"] });
  await settle();
  server.last.welcome();
  server.last.grant([BTC, quote(1, 1, 5, 6), trade(1, 1, 5)]);
  server.last.packet([bad]);
  await settle(1000);
  expect(errors).toEqual([expect.stringContaining("protocol: sequence")]);
  expect(server.sockets).toHaveLength(2);
  server.last.welcome();
  expect(server.last.grant([BTC, quote(1, 2, 8, 9), trade(1, 2, 5)]).map(({ op }) => op)).toEqual(["subscribe"]);
  await settle();
  expect(client.quotes.bidPx[0]).toBe(8);
  client.close();
});
