// @vitest-environment jsdom
/** Mantissas beyond 2^53: the nearest numbers, marked, with exact digits in rests and text. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { feedGrid, type GridRow } from "../src/adapters/ag-grid";
import { followBars, type Bar } from "../src/adapters/lightweight-charts";
import { feedTable, type TableColumns } from "../src/adapters/perspective";
import { followSeries } from "../src/adapters/uplot";
import { decimal } from "../src/index";
import type { Book, Client, QuoteUpdate, TradeUpdate } from "../src/types";
import { book, definition, FakeServer, quote, settle, ticker, trade } from "./fake";

let server: FakeServer;
beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "Date"] });
  vi.setSystemTime(1_763_700_000_000);
  vi.stubGlobal("fetch", async () => new Response(null, { status: 404 }));
  server = new FakeServer();
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** Prices and sizes with 8 decimals, as of a cheap coin. */
const COIN = definition(1, "COIN-USDT", -8, -8);
/** 120 billion units and a bit: about 1332 times 2^53. */
const HUGE = 12_000_000_000_000_000_001n;
const I64_MAX = 2n ** 63n - 1n;
const SIZE = 9_007_199_254_740_993n;

async function started(channels: ("quote" | "trade" | "ticker" | "book")[] = ["quote"]): Promise<Client> {
  const client = server.client({ pull: "immediate" });
  client.subscribe({ symbols: "COIN-USDT", channels });
  await settle();
  server.last.welcome();
  server.last.grant([COIN]);
  await settle();
  return client;
}

async function send(...records: ArrayBuffer[]): Promise<void> {
  server.last.packet(records);
  await settle();
}

describe("values", () => {
  test("a quote beyond 2^53 is the nearest number, marked by its rest", async () => {
    const client = await started();
    const errors: string[] = [];
    client.on("error", ({ code, message }) => errors.push(`${code}: ${message}`));
    const sizes: [bigint, bigint] = [SIZE, I64_MAX];
    await send(quote(1, 1, 48, 49n, 0x80, sizes), quote(1, 2, 48, -(2n ** 63n) + 1n, 0x80, sizes));
    const { quotes } = client;
    expect([quotes.bidPx[0], quotes.bidPxRest[0]]).toEqual([48, 0]);
    expect([quotes.bidSz[0], quotes.bidSzRest[0]]).toEqual([2 ** 53, 1]);
    expect([quotes.askSz[0], quotes.askSzRest[0]]).toEqual([2 ** 63, -1]);
    expect([quotes.askPx[0], quotes.askPxRest[0]]).toEqual([-(2 ** 63), 1]);
    expect(client.exact("quote", 0, "askSz")).toBe(I64_MAX);
    expect(client.exact("quote", 0, "bidPx")).toBe(48n);
    expect(client.formatSize(0, quotes.bidSz[0], quotes.bidSzRest[0])).toBe("90071992.54740993");
    expect(errors).toEqual(["inexact: quote of COIN-USDT: a value beyond 2^53"]);
    await send(quote(1, 3, 48, -(2n ** 63n)));
    expect([quotes.askPx[0], quotes.askPxRest[0], quotes.bidSzRest[0]]).toEqual([NaN, 0, 0]);
    expect(client.exact("quote", 0, "askPx")).toBeNull();
    expect(client.format(0, quotes.askPx[0])).toBe("");
    client.close();
  });

  test("a number beyond 2^53 that is exact has no mark", async () => {
    const client = await started();
    await send(quote(1, 1, 5n * 10n ** 17n, 2n ** 60n));
    expect([client.quotes.bidPx[0], client.quotes.bidPxRest[0], client.quotes.askPxRest[0]]).toEqual([5e17, 0, 0]);
    client.close();
  });

  test("every trade keeps its digits, also those that are no longer the newest", async () => {
    const client = server.client({ pull: "immediate" });
    const seen: TradeUpdate[] = [];
    const listed: bigint[] = [];
    client.onFrame(({ trades }) => {
      for (let at = 0; at < trades.length; at++) listed.push(BigInt(trades.sz[at]) + BigInt(trades.szRest[at]));
    });
    client.onUpdate({ symbols: "COIN-USDT", channels: "trade" }, (update) => seen.push(update));
    await settle();
    server.last.welcome();
    server.last.grant([COIN]);
    await send(
      trade(1, 1, 48, 0x80, SIZE, 2n ** 64n - 1n),
      trade(1, 2, 49, 0x80, SIZE + 2n),
      trade(1, 3, 50, 0x80, 7),
    );
    expect(seen.map(({ size, inexact }) => [size, inexact])).toEqual([
      ["90071992.54740993", true],
      ["90071992.54740995", true],
      ["0.00000007", false],
    ]);
    expect([seen[0].id, seen[0].tradeId]).toEqual(["18446744073709551615", 2 ** 64]);
    expect(listed).toEqual([SIZE, SIZE + 2n, 7n]);
    client.close();
  });

  test("a ticker's volume beyond 2^53 is the nearest number with exact text", async () => {
    const client = server.client({ pull: "immediate" });
    const texts: string[] = [];
    client.onUpdate({ symbols: "COIN-USDT", channels: "ticker" }, (update) => {
      texts.push(`${update.volumeText} ${update.turnoverText} ${update.inexact}`);
    });
    await settle();
    server.last.welcome();
    server.last.grant([COIN, ticker(1, 1, [48, 47, 49, 46, I64_MAX, SIZE, 48, 49])]);
    await settle();
    expect(texts).toEqual(["92233720368.54775807 90071992.54740993 true"]);
    expect([client.tickers.volume[0], client.tickers.volumeRest[0]]).toEqual([2 ** 63, -1]);
    client.close();
  });

  test("an update is marked, and its text is exact", async () => {
    const client = server.client({ pull: "immediate" });
    const seen: QuoteUpdate[] = [];
    client.onUpdate({ symbols: "COIN-USDT" }, (update) => seen.push(update));
    await settle();
    server.last.welcome();
    server.last.grant([COIN, quote(1, 1, 48, 49, 0x80, [SIZE, 2])]);
    await settle();
    expect(seen[0]).toMatchObject({ inexact: true, bidSz: 2 ** 53 });
    expect(seen[0]).toMatchObject({ bidSize: "90071992.54740993", askSize: "0.00000002" });
    client.close();
  });

  test("a position beyond 2^53 is no token", async () => {
    const client = await started();
    server.last.packet([quote(1, 1, 48, 49)], { position: 2 ** 53 });
    server.last.closeWith(1006);
    await settle(1);
    server.last.welcome();
    expect(server.last.takeRequests()).toMatchObject([{ op: "subscribe" }]);
    client.close();
  });

  test("a sum beyond 10^21 has its digits", () => {
    expect(decimal(2 ** 70, -8)).toBe("11805916207174.11303424");
    expect(decimal(-(2 ** 70), 0)).toBe("-1180591620717411303424");
  });
});

describe("books", () => {
  const sides = ({ bids, asks }: Book): number[][][] =>
    [bids, asks].map(({ px, sz, szRest }) => Array.from(px, (price, at) => [price, sz[at], szRest[at]]));

  test("a size beyond 2^53 is in the book, and does not make it suspect", async () => {
    const client = await started(["book"]);
    await send(
      book(1, 1, "S", [
        [48, 5, "B"],
        [47, HUGE - 10n ** 19n, "B"],
        [49, 3, "A"],
      ]),
    );
    const before = client.book(0)!;
    expect(sides(before)).toEqual([
      [
        [48, 5, 0],
        [47, 2_000_000_000_000_000_000, 1],
      ],
      [[49, 3, 0]],
    ]);
    expect([before.suspect, before.inexact, client.state(0)]).toEqual([false, true, "LIVE"]);
    // The old size of the best bid goes.
    await send(book(1, 2, "D", [[48, SIZE, "B"]]));
    expect(sides(client.book(0)!)[0][0]).toEqual([48, 2 ** 53, 1]);
    await send(book(1, 3, "D", [[48, 0, "B"]]), book(1, 4, "D", [[47, 9, "B"]]));
    expect(sides(client.book(0)!)[0]).toEqual([[47, 9, 0]]);
    expect([client.book(0)!.inexact, client.state(0)]).toEqual([false, "LIVE"]);
    client.close();
  });

  test("a price that no number has exactly makes the book suspect until a snapshot without one", async () => {
    const client = await started(["book"]);
    const price = 2n ** 53n + 1n;
    await send(book(1, 1, "S", [[price, 1, "B"], [5, 2, "B"]]));
    expect([client.book(0)!.suspect, client.book(0)!.inexact, client.state(0)]).toEqual([true, true, "RESYNCING"]);
    expect(client.book(0)!.bids.px[0]).toBe(2 ** 53);
    await send(book(1, 2, "D", [[5, 3, "B"]]));
    expect([client.book(0)!.suspect, client.state(0)]).toEqual([true, "RESYNCING"]);
    await send(book(1, 3, "D", [[price, 0, "B"]]));
    expect(client.book(0)!.suspect).toBe(true);
    await send(book(1, 4, "S", [[price + 2n, 1, "A"]]));
    expect(client.book(0)!.suspect).toBe(true);
    await send(book(1, 5, "S", [[5n * 10n ** 17n, 1, "A"], [6, 1, "B"]]));
    expect([client.book(0)!.suspect, client.book(0)!.inexact, client.state(0)]).toEqual([false, false, "LIVE"]);
    // A server cannot give it any better: it is not asked again.
    expect(server.last.takeRequests()).toEqual([]);
    client.close();
  });

  test("the server's mark of a bad book stays apart from that of a price", async () => {
    const client = await started(["book"]);
    await send(book(1, 1, "S", [[5, 1, "B"]], 0x84));
    expect(client.book(0)!.suspect).toBe(true);
    await send(book(1, 2, "D", [[6, 1, "B"]]));
    expect(client.book(0)!.suspect).toBe(false);
    client.close();
  });
});

describe("adapters", () => {
  const sizes: [bigint, bigint] = [SIZE, I64_MAX];
  const records = (): ArrayBuffer[] => [
    quote(1, 1, SIZE, I64_MAX, 0x80, sizes),
    ticker(1, 1, [48, 47, 49, 46, I64_MAX, SIZE, 48, 49]),
    trade(1, 1, SIZE, 0x80, SIZE),
  ];

  async function granted(): Promise<void> {
    await settle();
    server.last.welcome();
    server.last.grant([COIN]);
    await send(...records());
  }

  test("AG Grid gets finite numbers and exact text", async () => {
    const client = server.client({ pull: "immediate" });
    const rows: GridRow[] = [];
    const grid = { applyTransactionAsync: ({ add = [], update = [] }: any) => void rows.push(...add, ...update) };
    feedGrid<GridRow>(client, grid, { symbols: "*", channels: ["quote", "trade", "ticker"] });
    await granted();
    const { bid, bidSize, askSize, last, volume, text } = rows.at(-1)!;
    expect([bid, bidSize, last]).toEqual([90071992.54740992, 90071992.54740992, 90071992.54740992]);
    expect([askSize, volume]).toEqual([92233720368.54775807, 92233720368.54775807]);
    expect(text).toEqual({ bid: "90071992.54740993", ask: "92233720368.54775807", last: "90071992.54740993" });
    client.close();
  });

  test("Perspective gets finite numbers", async () => {
    const client = server.client({ pull: "immediate" });
    const updates: TableColumns[] = [];
    feedTable(client, { update: (columns) => void updates.push(columns), remove: () => {} }, { symbols: "*" });
    await granted();
    expect(updates.at(-1)).toMatchObject({ bid_size: [90071992.54740992], volume: [92233720368.54775807] });
    client.close();
  });

  test("uPlot draws the nearest number", async () => {
    const client = server.client({ pull: "immediate" });
    const drawn: number[][] = [];
    const chart = { setData: (data: Float64Array[]) => void drawn.push(data.map((one) => one.at(-1)!)) };
    followSeries(client, chart, { symbol: "COIN-USDT", fields: ["bid", "ask", "last"] });
    await granted();
    expect(drawn.at(-1)!.slice(1)).toEqual([90071992.54740992, 92233720368.54775807, 90071992.54740992]);
    client.close();
  });

  test("lightweight-charts goes on with trades beyond 2^53", async () => {
    const client = server.client({ pull: "immediate" });
    const bars: Bar[] = [];
    const series = { setData: () => {}, update: (bar: Bar) => void bars.push({ ...bar }) };
    followBars(client, series, { symbol: "COIN-USDT", history: "http://fake" });
    await granted();
    await send(trade(1, 2, 48));
    const [open, low] = [90071992.54740992, 48e-8];
    expect(bars.at(-1)).toEqual({ time: 1_763_700_000, open, high: open, low, close: low });
    client.close();
  });
});
