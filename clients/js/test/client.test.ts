/** Subscriptions, values and states, against a fake server. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Gap } from "../src/types";
import { book, definition, FakeServer, gap, quote, settle, status, trade } from "./fake";

let server: FakeServer;
beforeEach(() => {
  vi.useFakeTimers();
  server = new FakeServer();
});
afterEach(() => vi.useRealTimers());

const BTC = definition(1, "BTC-USD");
const ETH = definition(2, "ETH-USD");

test("subscriptions of one microtask share one request", async () => {
  const client = server.client({ conflateMs: 250 });
  client.subscribe({ symbols: "BTC-USD" });
  client.subscribe({ symbols: ["ETH-USD", "BTC-USD"] });
  client.subscribe({ symbols: "SOL-USD", channels: ["trade", "quote"] });
  await settle();
  server.last.welcome();
  expect(server.last.takeRequests()).toEqual([
    { op: "subscribe", id: expect.any(Number), channels: ["quote"], symbols: ["BTC-USD", "ETH-USD"], conflate_ms: 250 },
    { op: "subscribe", id: expect.any(Number), channels: ["quote", "trade"], symbols: ["SOL-USD"], conflate_ms: 250 },
  ]);
  client.close();
});

test("a symbol is unsubscribed with its last subscription", async () => {
  const client = server.client();
  const one = client.subscribe({ symbols: ["BTC-USD", "ETH-USD"] });
  const other = client.subscribe({ symbols: "BTC-USD" });
  await settle();
  server.last.welcome();
  server.last.grant([BTC, ETH]);
  one.close();
  await settle();
  expect(server.last.takeRequests()).toMatchObject([{ op: "unsubscribe", channels: ["quote"], symbols: ["ETH-USD"] }]);
  other.close();
  await settle();
  expect(server.last.takeRequests()).toMatchObject([{ op: "unsubscribe", channels: ["quote"], symbols: ["BTC-USD"] }]);
  client.close();
});

test("the shortest interval is requested, and changes live", async () => {
  const client = server.client({ conflateMs: 500 });
  const slow = client.subscribe({ symbols: "BTC-USD" });
  const quick = client.subscribe({ symbols: "BTC-USD", conflateMs: 50 });
  await settle();
  server.last.welcome();
  expect(server.last.grant([BTC])).toMatchObject([{ conflate_ms: 50 }]);
  quick.close();
  await settle();
  expect(server.last.grant()).toMatchObject([{ op: "subscribe", conflate_ms: 500 }]);
  client.conflateMs = 1000;
  await settle();
  expect(server.last.grant()).toMatchObject([{ op: "subscribe", conflate_ms: 1000 }]);
  slow.wantedMs = 0;
  await settle();
  expect(server.last.grant()).toMatchObject([{ op: "subscribe", conflate_ms: 0 }]);
  client.close();
});

test("a new interval during a snapshot needs no second snapshot", async () => {
  const client = server.client();
  const subscription = client.subscribe({ symbols: "BTC-USD" });
  await settle();
  server.last.welcome();
  const answer = ({ id }: { id: number }): void =>
    server.last.sendControl({ type: "subscribed", id, conflate_ms: 100, count: 1, unknown: [], denied: [] });
  server.last.takeRequests().forEach(answer);
  server.last.packet([BTC], { flags: 1 });
  client.conflateMs = 250;
  await settle();
  const again = server.last.takeRequests();
  expect(again).toMatchObject([{ op: "subscribe", conflate_ms: 250 }]);
  server.last.packet([quote(1, 1, 10, 11)], { flags: 5, position: 20 });
  again.forEach(answer);
  server.last.packet([quote(1, 2, 12, 13)], { position: 30 });
  await settle();
  expect(await subscription.ready).toMatchObject({ conflateMs: 250 });
  expect(client.state("BTC-USD")).toBe("LIVE");
  server.last.closeWith(1006);
  await settle(1);
  server.last.welcome();
  expect(server.last.takeRequests()).toMatchObject([{ op: "resume", position: 30, conflate_ms: 250 }]);
  client.close();
});

test("ready is replaced by a change, and an answer to the former list does not resolve it", async () => {
  const client = server.client();
  const list = client.subscribe({ symbols: "BTC-USD" });
  const early = list.ready;
  await settle();
  server.last.welcome();
  const complete: string[] = [];
  void early.then(() => complete.push("early"));
  list.symbols = ["BTC-USD"];
  void list.ready.then(() => complete.push("first"));
  await settle();
  server.last.grant([BTC]);
  await settle();
  expect(complete.sort()).toEqual(["early", "first"]);
  server.last.grant([], { unknown: ["BTC-USD"] });
  // The answer to the former list is under way when another one is assigned.
  list.symbols = ["NOPE"];
  await Promise.resolve();
  server.last.grant([], { unknown: ["NOPE"] });
  list.symbols = ["BTC-USD", "ETH-USD"];
  void list.ready.then(({ unknown }) => complete.push(`second ${unknown}`));
  expect(list.ready).not.toBe(early);
  await settle();
  expect([complete.length, list.unknown]).toEqual([2, []]);
  server.last.grant([ETH, quote(2, 1, 5, 6)]);
  await settle();
  expect(complete[2]).toBe("second ");
  client.close();
  const closed = client.subscribe({ symbols: "BTC-USD" });
  await expect(closed.ready).rejects.toThrow("closed");
  await expect(server.client().subscribe({ symbols: "A", signal: AbortSignal.abort() }).ready).rejects.toThrow();
});

test("two answers before one snapshot are complete at its end", async () => {
  const client = server.client();
  const slow = client.subscribe({ symbols: "BTC-USD", conflateMs: 500 });
  const quick = client.subscribe({ symbols: "ETH-USD", conflateMs: 50 });
  const complete: string[] = [];
  for (const { ready, symbols } of [slow, quick]) void ready.then(() => complete.push(symbols[0]));
  await settle();
  server.last.welcome();
  for (const { id } of server.last.takeRequests()) {
    server.last.sendControl({ type: "subscribed", id, conflate_ms: 50, count: 1, unknown: [], denied: [] });
  }
  server.last.packet([BTC], { flags: 1 });
  await settle();
  expect([complete, client.state("BTC-USD")]).toEqual([[], "RESYNCING"]);
  server.last.packet([quote(1, 1, 10, 11), ETH, quote(2, 1, 5, 6)], { flags: 5 });
  await settle();
  expect([complete, client.state("BTC-USD")]).toEqual([["BTC-USD", "ETH-USD"], "LIVE"]);
  client.close();
});

test("a new interval during a replay does not restart the replay", async () => {
  const client = server.client();
  client.subscribe({ symbols: "BTC-USD" });
  await settle();
  server.last.welcome();
  server.last.grant([BTC]);
  server.last.closeWith(1006);
  await settle(1);
  server.last.welcome();
  const [{ id }] = server.last.takeRequests();
  server.last.sendControl({ type: "resumed", id, how: "replay", from: 101, conflate_ms: 100, count: 1, unknown: [] });
  client.conflateMs = 250;
  await settle();
  expect(server.last.takeRequests().map(({ op }) => op)).toEqual(["subscribe"]);
  client.close();
});

test("a name gets the shorter interval of a pattern that covers it", async () => {
  const client = server.client();
  client.subscribe({ symbols: "ETH-*", conflateMs: 10 });
  client.subscribe({ symbols: "ETH-USD", conflateMs: 1000 });
  await settle();
  server.last.welcome();
  expect(server.last.takeRequests().map(({ symbols, conflate_ms }) => [symbols, conflate_ms])).toEqual([
    [["ETH-USD"], 10],
    [["ETH-*"], 10],
  ]);
  client.close();
});

test("names under a closed pattern resume from the token", async () => {
  const client = server.client();
  client.subscribe({ symbols: "ETH-USD" });
  const all = client.subscribe({ symbols: "ETH-*" });
  await settle();
  server.last.welcome();
  server.last.grant([ETH], { position: 55 });
  all.close();
  await settle();
  expect(server.last.takeRequests()).toMatchObject([
    { op: "unsubscribe", symbols: ["ETH-*"] },
    { op: "resume", symbols: ["ETH-USD"], epoch: 7, position: 55 },
  ]);
  client.close();
});

test("unknown names are reported once, and follow when they are defined", async () => {
  const client = server.client();
  const errors: string[] = [];
  client.on("error", ({ code, symbols }) => errors.push(`${code} ${symbols}`));
  const subscription = client.subscribe({ symbols: ["BTC-USD", "NOPE"] });
  await settle();
  server.last.welcome();
  server.last.grant([BTC], { unknown: ["NOPE"] });
  await settle();
  expect(await subscription.ready).toMatchObject({ unknown: ["NOPE"], denied: [] });
  expect(errors).toEqual(["unknown_symbol NOPE"]);
  server.last.packet([quote(1, 1, 10, 11)]);
  await settle(5000);
  server.last.packet([definition(3, "NOPE"), quote(3, 1, 20, 21)]);
  await settle();
  expect([subscription.unknown, client.state("NOPE"), client.quotes.bidPx[1]]).toEqual([[], "LIVE", 20]);
  expect(errors).toHaveLength(1);
  subscription.close();
  await settle();
  // No request meanwhile, and the server held both names.
  expect(server.last.takeRequests()).toMatchObject([{ op: "unsubscribe", symbols: ["BTC-USD", "NOPE"] }]);
  client.close();
});

test("an unknown name beside a pattern over it is live when it is defined, without another request", async () => {
  const client = server.client();
  const answers: (readonly string[])[] = [];
  client.subscribe({ symbols: "N*", channels: "trade" });
  const named = client.subscribe({ symbols: "NOPE", channels: ["quote", "book"] });
  await settle();
  server.last.welcome();
  server.last.grant([], { unknown: ["NOPE"] });
  await settle();
  answers.push(named.unknown);
  server.last.packet([definition(3, "NOPE"), quote(3, 1, 5, 6)]);
  await settle();
  answers.push(named.unknown);
  expect(answers).toEqual([["NOPE"], []]);
  expect(server.last.takeRequests()).toEqual([]);
  expect([client.state("NOPE"), client.quotes.bidPx[0]]).toEqual(["LIVE", 5]);
  client.close();
});

test("an unknown name that is given up is unsubscribed", async () => {
  const client = server.client();
  const subscription = client.subscribe({ symbols: "NOPE" });
  await settle();
  server.last.welcome();
  server.last.grant([], { unknown: ["NOPE"] });
  subscription.close();
  await settle();
  expect(server.last.takeRequests()).toMatchObject([{ op: "unsubscribe", symbols: ["NOPE"] }]);
  client.close();
});

test("requests stay below the rate of the welcome", async () => {
  const client = server.client();
  await settle();
  server.last.welcome(7, { limits: { symbols: 10_000, requests_per_s: 10 } });
  for (let index = 0; index < 40; index++) {
    client.subscribe({ symbols: `S${index}` });
    await settle();
  }
  const sentAtOnce = server.last.requests.length;
  expect(sentAtOnce).toBeLessThanOrEqual(9);
  await settle(1000);
  expect(server.last.requests.length - sentAtOnce).toBeLessThanOrEqual(9);
  for (let second = 0; second < 10; second++) {
    server.last.packet([]);
    await settle(1000);
  }
  expect(server.last.takeRequests()).toHaveLength(40);
  client.close();
});

test("a frame has each changed row once, and all trades in order", async () => {
  const client = server.client();
  const frames: { changed: number[]; px: number[] }[] = [];
  client.onFrame(({ changed, trades }) => {
    frames.push({ changed: [...changed], px: [...trades.px.subarray(0, trades.length)] });
  });
  client.subscribe({ symbols: "*", channels: ["quote", "trade"] });
  await settle();
  server.last.welcome();
  server.last.grant([BTC, ETH]);
  await settle();
  frames.length = 0;
  server.last.packet([quote(1, 1, 10, 11), trade(1, 1, 10), quote(1, 2, 12, 13), trade(1, 2, 12), trade(2, 1, 99)]);
  await settle();
  expect(frames).toEqual([{ changed: [0, 1], px: [10, 12, 99] }]);
  expect(client.quotes.bidPx[0]).toBe(12);
  expect(client.lastTrades.px[1]).toBe(99);
  client.close();
});

test("a repeated record is skipped", async () => {
  const client = server.client();
  client.subscribe({ symbols: "BTC-USD", channels: ["quote", "trade"] });
  const trades: number[] = [];
  client.onFrame((frame) => trades.push(...frame.trades.sequence.subarray(0, frame.trades.length)));
  await settle();
  server.last.welcome();
  server.last.grant([BTC, quote(1, 5, 50, 51), trade(1, 8, 50)]);
  server.last.packet([quote(1, 4, 40, 41), trade(1, 8, 50), trade(1, 7, 49), trade(1, 9, 51)]);
  await settle();
  expect(client.quotes.bidPx[0]).toBe(50);
  expect(trades).toEqual([8, 9]);
  client.close();
});

test("a gap is reported with its reason, announced by the server or not", async () => {
  const client = server.client();
  const gaps: Gap[] = [];
  client.on("gap", (one) => gaps.push(one));
  client.subscribe({ symbols: "BTC-USD", channels: "trade" });
  await settle();
  server.last.welcome();
  server.last.grant([BTC, trade(1, 1, 1)]);
  server.last.packet([gap(1, 2, 2, 9), trade(1, 10, 1), trade(1, 12, 1)]);
  await settle();
  expect(gaps).toMatchObject([
    { symbol: "BTC-USD", channel: "trade", from: 2, to: 9, reason: "overrun" },
    { symbol: "BTC-USD", channel: "trade", from: 11, to: 11, reason: "order" },
  ]);
  client.close();
});

test("a book applies its changes, and a gap resyncs that book alone", async () => {
  const client = server.client();
  client.subscribe({ symbols: ["BTC-USD", "ETH-USD"], channels: "book" });
  await settle();
  server.last.welcome();
  server.last.grant([
    BTC,
    ETH,
    book(1, 5, "S", [
      [100, 1, "B"],
      [99, 2, "B"],
      [101, 3, "A"],
    ]),
    book(2, 1, "S", []),
  ]);
  server.last.packet([
    book(1, 6, "D", [
      [100, 0, "B"],
      [98, 7, "B"],
      [102, 4, "A"],
      [101, 5, "A"],
    ]),
  ]);
  await settle();
  const bids = (): number[][] => levels(client.book(0)!.bids);
  const levels = ({ px, sz, length }: { px: Float64Array; sz: Float64Array; length: number }): number[][] =>
    Array.from({ length }, (_, index) => [px[index], sz[index]]);
  expect(bids()).toEqual([
    [99, 2],
    [98, 7],
  ]);
  expect(levels(client.book(0)!.asks)).toEqual([
    [101, 5],
    [102, 4],
  ]);
  server.last.packet([book(1, 8, "D", [[97, 1, "B"]])]);
  await settle();
  expect([client.state(0), client.state(1), client.book(0)!.suspect]).toEqual(["RESYNCING", "LIVE", true]);
  expect(server.last.takeRequests()).toMatchObject([
    { op: "unsubscribe", channels: ["book"], symbols: ["BTC-USD"] },
    { op: "subscribe", channels: ["book"], symbols: ["BTC-USD"] },
  ]);
  server.last.packet([book(1, 8, "S", [[97, 1, "B"]])]);
  await settle();
  expect(bids()).toEqual([[97, 1]]);
  expect(client.state(0)).toBe("LIVE");
  client.close();
});

test("a conflated book change covers the sequences it skips", async () => {
  const client = server.client();
  client.subscribe({ symbols: "BTC-USD", channels: "book" });
  await settle();
  server.last.welcome();
  server.last.grant([BTC, book(1, 5, "S", [[100, 1, "B"]])]);
  server.last.packet([book(1, 9, "D", [[99, 4, "B"]], 0x90)]);
  await settle();
  expect(client.book("BTC-USD")!.bids.length).toBe(2);
  expect(client.state("BTC-USD")).toBe("LIVE");
  client.close();
});

test("an instrument's state follows its status, the feed's status and its book", async () => {
  const client = server.client();
  const states: string[] = [];
  client.on("state", ({ symbol, state }) => states.push(`${symbol} ${state}`));
  client.subscribe({ symbols: ["BTC-USD", "ETH-USD"], channels: ["quote", "book"] });
  await settle();
  server.last.welcome();
  server.last.grant([BTC, ETH]);
  await settle();
  const send = async (...records: ArrayBuffer[]): Promise<string[]> => {
    states.length = 0;
    server.last.packet(records);
    await settle();
    return [...states];
  };
  expect(await send(status(1, "H"))).toEqual(["BTC-USD HALTED"]);
  expect(await send(status(1, "L"))).toEqual(["BTC-USD LIVE"]);
  expect(await send(status(0, "S"))).toEqual(["BTC-USD STALE", "ETH-USD STALE"]);
  expect(await send(status(0, "L"))).toEqual(["BTC-USD LIVE", "ETH-USD LIVE"]);
  expect(await send(status(2, "E"))).toEqual(["ETH-USD ENDED"]);
  expect(await send(book(1, 1, "S", [], 0x84))).toEqual(["BTC-USD RESYNCING"]);
  expect(await send(book(1, 2, "S", []))).toEqual(["BTC-USD LIVE"]);
  client.close();
  expect(client.state("BTC-USD")).toBe("STALE");
});

test("updates are objects with text, and a signal ends loops", async () => {
  const client = server.client();
  const signal = new AbortController();
  const seen: string[] = [];
  client.onUpdate({ symbols: "BTC-USD" }, ({ symbol, bid, askSize }) => seen.push(`${symbol} ${bid} ${askSize}`));
  const loop = (async () => {
    const prices: string[] = [];
    for await (const { price, side } of client.trades("*", { signal: signal.signal })) prices.push(`${side} ${price}`);
    return prices;
  })();
  await settle();
  server.last.welcome();
  server.last.grant([BTC, quote(1, 1, 6183763, 6183800), trade(1, 1, 5)]);
  await settle();
  server.last.packet([trade(1, 2, -7)]);
  await settle();
  signal.abort();
  expect(seen).toEqual(["BTC-USD 61837.63 0.00000002"]);
  expect(await loop).toEqual(["buy 0.05", "buy -0.07"]);
  await settle();
  expect(server.last.takeRequests()).toMatchObject([{ op: "unsubscribe", channels: ["trade"], symbols: ["*"] }]);
  client.close();
});

test("a copy of an update has its text", async () => {
  const client = server.client();
  const seen: unknown[] = [];
  client.onUpdate({ symbols: "BTC-USD" }, (update) => seen.push({ ...update }, JSON.parse(JSON.stringify(update))));
  await settle();
  server.last.welcome();
  server.last.grant([BTC, quote(1, 1, 6183763, 6183800)]);
  await settle();
  const text = { bidPx: 6183763, bid: "61837.63", ask: "61838.00", askSize: "0.00000002" };
  expect(seen).toMatchObject([text, text]);
  client.close();
});

test("a second listener gets the present value", async () => {
  const client = server.client();
  client.subscribe({ symbols: "BTC-USD" });
  await settle();
  server.last.welcome();
  server.last.grant([BTC, quote(1, 1, 100, 200)]);
  await settle();
  const seen: string[] = [];
  client.onUpdate({ symbols: "BTC-USD" }, ({ bid }) => seen.push(bid));
  await settle();
  expect(seen).toEqual(["1.00"]);
  expect(server.last.takeRequests()).toEqual([]);
  client.close();
});

test("trades that are not pulled are bounded, and dropped ones are reported", async () => {
  const client = server.client({ tradeBacklog: 128 });
  const lags: number[] = [];
  const sequences: number[] = [];
  client.on("lag", ({ dropped }) => lags.push(dropped));
  client.onFrame(({ trades }) => sequences.push(...trades.sequence.subarray(0, trades.length)));
  client.subscribe({ symbols: "BTC-USD", channels: "trade" });
  await settle(2000);
  server.last.welcome();
  server.last.grant([BTC]);
  for (let sequence = 1; sequence <= 1000; sequence++) server.last.packet([trade(1, sequence, sequence)]);
  await settle();
  expect(sequences.length).toBeLessThanOrEqual(128);
  expect(sequences.at(-1)).toBe(1000);
  expect(sequences).toEqual(Array.from({ length: sequences.length }, (_, index) => 1001 - sequences.length + index));
  expect(lags).toEqual([1000 - sequences.length]);
  expect(client.stats.tradesDropped).toBe(1000 - sequences.length);
  client.close();
});

test("a slow loop's trades are bounded, and dropped ones are counted", async () => {
  const client = server.client({ tradeBacklog: 16 });
  const lags: number[] = [];
  client.on("lag", ({ dropped }) => lags.push(dropped));
  const trades = client.trades("BTC-USD");
  await settle(2000);
  server.last.welcome();
  server.last.grant([BTC]);
  for (let sequence = 1; sequence <= 20; sequence++) {
    server.last.packet([trade(1, sequence, sequence)]);
    await settle();
  }
  await settle(1000);
  server.last.packet([trade(1, 21, 21)]);
  await settle();
  const { value } = await trades[Symbol.asyncIterator]().next();
  expect([value.sequence, client.stats.tradesDropped]).toEqual([6, 5]);
  expect(lags.reduce((sum, dropped) => sum + dropped)).toBe(5);
  client.close();
});

test("columns grow and keep their values", async () => {
  const client = server.client();
  client.subscribe({ symbols: "*" });
  await settle();
  server.last.welcome();
  const names = Array.from({ length: 2000 }, (_, index) => `S${index}`);
  server.last.grant(
    names.flatMap((name, index) => [definition(index + 1, name), quote(index + 1, 1, index, index + 1)]),
  );
  await settle();
  expect(client.instruments.length).toBe(2000);
  for (const row of [0, 63, 64, 1999]) {
    expect([client.instruments.symbol(row), client.quotes.bidPx[row], client.state(row)]).toEqual([
      `S${row}`,
      row,
      "LIVE",
    ]);
  }
  expect(client.quotes.bidPx[2040]).toBeNaN();
  client.close();
});

test("a listener that throws does not stop the others", async () => {
  const client = server.client();
  const uncaught: unknown[] = [];
  const note = (error: unknown): void => void uncaught.push(error);
  process.on("uncaughtException", note);
  let heard = 0;
  client.onFrame(() => {
    throw new Error("mine");
  });
  client.onFrame(() => heard++);
  client.subscribe({ symbols: "BTC-USD" });
  await settle();
  server.last.welcome();
  server.last.grant([BTC]);
  await settle();
  process.off("uncaughtException", note);
  expect(heard).toBeGreaterThan(0);
  client.close();
});
