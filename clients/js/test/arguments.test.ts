// @vitest-environment jsdom
/** Wrong arguments throw in the call, with the name of the argument, the value and what is expected. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { feedGrid } from "../src/adapters/ag-grid";
import { followBars } from "../src/adapters/lightweight-charts";
import { feedTable } from "../src/adapters/perspective";
import { followSeries } from "../src/adapters/uplot";
import { connect, decimal } from "../src/index";
import type { Client } from "../src/types";
import { definition, FakeServer, settle } from "./fake";

let server: FakeServer;
let client: Client;
beforeEach(() => {
  vi.useFakeTimers();
  server = new FakeServer();
  client = server.client({ pull: "immediate" });
});
afterEach(() => {
  client.close();
  vi.useRealTimers();
});

/** The error of a call: its kind and its text. */
function errorOf(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    return `${(error as Error).name}: ${(error as Error).message}`;
  }
  return "nothing was thrown";
}

const MS = "expected 0 to 1000, or null";
const COUNT = "expected a whole number from 1, or Infinity";
const DELAY = "out of range: expected 0 to 2147483647";

test.each<[object | null, string]>([
  [null, "TypeError: options: null is invalid: expected an object"],
  [{ conflate_ms: 50 }, 'TypeError: option: "conflate_ms" is invalid: expected url, token, conflateMs, hiddenConflateMs, '],
  [{ url: "ftp://x" }, 'TypeError: url: "ftp://x" is invalid: expected a ws, wss, http or https URL'],
  [{ url: "http://[" }, 'TypeError: url: "http://[" is invalid: expected a ws, wss, http or https URL'],
  [{ url: "" }, 'TypeError: url: "" is invalid: expected a ws, wss, http or https URL'],
  [{ url: null }, "TypeError: url: null is invalid: expected a URL, or a function for one"],
  [{ url: 9001 }, "TypeError: url: 9001 is invalid: expected a URL, or a function for one"],
  [{ conflateMs: -1 }, `RangeError: conflateMs: -1 is out of range: ${MS}`],
  [{ conflateMs: 1001 }, `RangeError: conflateMs: 1001 is out of range: ${MS}`],
  [{ conflateMs: NaN }, `RangeError: conflateMs: NaN is out of range: ${MS}`],
  [{ conflateMs: "100" }, `TypeError: conflateMs: "100" is invalid: ${MS}`],
  [{ hiddenConflateMs: 5000 }, `RangeError: hiddenConflateMs: 5000 is out of range: ${MS}`],
  [{ worker: true }, 'TypeError: worker: true is invalid: expected "auto", false or a function'],
  [{ signal: new AbortController() }, "TypeError: signal: an object is invalid: expected an AbortSignal"],
  [{ pull: "frames" }, 'TypeError: pull: "frames" is invalid: expected frame, immediate'],
  [{ bookDepth: 0 }, `RangeError: bookDepth: 0 is out of range: ${COUNT}`],
  [{ bookDepth: 2.5 }, `RangeError: bookDepth: 2.5 is out of range: ${COUNT}`],
  [{ bookDepth: "9" }, `TypeError: bookDepth: "9" is invalid: ${COUNT}`],
  [{ tradeBacklog: null }, `TypeError: tradeBacklog: null is invalid: ${COUNT}`],
  [{ lagMs: -5 }, "RangeError: lagMs: -5 is out of range: expected 0 to Infinity"],
  [{ WebSocket: {} }, "TypeError: WebSocket: an object is invalid: expected a function"],
  [{ reconnect: 500 }, "TypeError: reconnect: 500 is invalid: expected an object"],
  [{ reconnect: { maxMs: 5 } }, 'TypeError: option: "maxMs" is invalid: expected firstMs, mostMs, settledMs'],
  [{ reconnect: { mostMs: Infinity } }, `RangeError: mostMs: Infinity is ${DELAY}`],
  [{ reconnect: { firstMs: -1 } }, `RangeError: firstMs: -1 is ${DELAY}`],
])("connect(%j)", (options, expected) => {
  expect(errorOf(() => connect(options === null ? (null as never) : { url: "ws://fake", ...options }))).toContain(
    expected,
  );
});

const NAMES = "expected 1 to 255 bytes, visible, spaces only inside, at most one * at the end";
const CHANNEL = "expected quote, trade, ticker, book, raw";

test.each<[unknown, string]>([
  [undefined, "TypeError: options: undefined is invalid: expected an object"],
  ["BTC-USD", 'TypeError: options: "BTC-USD" is invalid: expected an object'],
  [{}, "TypeError: symbols: undefined is invalid: expected a name, or a list of names"],
  [{ symbol: "A" }, 'TypeError: option: "symbol" is invalid: expected symbols, channels, conflateMs, signal'],
  [{ symbols: 5 }, "symbols: 5 is invalid: expected a name, or a list of names"],
  [{ symbols: ["A", 5] }, `symbols: 5 is invalid: ${NAMES}`],
  [{ symbols: "" }, `TypeError: symbols: "" is invalid: ${NAMES}`],
  [{ symbols: "A*B" }, `TypeError: symbols: "A*B" is invalid: ${NAMES}`],
  [{ symbols: ["A\nB"] }, `TypeError: symbols: "A\nB" is invalid: ${NAMES}`],
  [{ symbols: "AAPL " }, `TypeError: symbols: "AAPL " is invalid: ${NAMES}`],
  [{ symbols: " A*" }, `TypeError: symbols: " A*" is invalid: ${NAMES}`],
  [{ symbols: "A\u00a0B" }, `is invalid: ${NAMES}`],
  [{ symbols: "BTC\u200b-USD" }, `is invalid: ${NAMES}`],
  [{ symbols: "\ud800" }, `is invalid: ${NAMES}`],
  [{ symbols: "é".repeat(128) }, `is invalid: ${NAMES}`],
  [{ symbols: "A", channels: "quotes" }, `TypeError: channels: "quotes" is invalid: ${CHANNEL}`],
  [{ symbols: "A", channels: ["quote", null] }, `TypeError: channels: null is invalid: ${CHANNEL}`],
  [{ symbols: "A", channels: [] }, "is invalid: expected a channel, or a list of channels"],
  [{ symbols: "A", channels: null }, "TypeError: channels: null is invalid: expected a channel, or a list of channels"],
  [{ symbols: "A", conflateMs: "fast" }, `TypeError: conflateMs: "fast" is invalid: ${MS}`],
  [{ symbols: "A", signal: "x" }, 'TypeError: signal: "x" is invalid: expected an AbortSignal'],
])("subscribe(%j)", (options, expected) => {
  for (const call of ["subscribe", "updates"] as const) {
    expect(errorOf(() => client[call](options as never))).toContain(expected);
  }
  expect(errorOf(() => client.onUpdate(options as never, () => {}))).toContain(expected);
});

test("a refused subscription requests nothing", async () => {
  errorOf(() => client.subscribe({ symbols: ["A", "B*C"] }));
  await settle();
  server.last.welcome();
  expect(server.last.takeRequests()).toEqual([]);
});

test("what is allowed does not throw", () => {
  const signal = new AbortController().signal;
  const own = server.client({
    ...{ conflateMs: 0, hiddenConflateMs: null, worker: false, signal, pull: "frame", bookDepth: Infinity },
    ...{ tradeBacklog: 1, lagMs: Infinity, reconnect: { firstMs: undefined, mostMs: 0 } },
  });
  const symbols = new Set(["AAPL  240119C00150000", "AAPL *", "A,B*", "币安人生", "*"]) as never;
  own.subscribe({ symbols, channels: ["raw"], conflateMs: null });
  own.subscribe({ symbols: [], channels: undefined, conflateMs: 1000 });
  own.onFrame(() => {}, { signal });
  own.close();
  connect(new URL("http://127.0.0.1:1")).close();
});

test.each<[string, () => unknown, string]>([
  ["conflateMs", () => (client.conflateMs = 2000), "RangeError: conflateMs: 2000 is out of range: expected 0 to 1000"],
  ["onFrame", () => client.onFrame(undefined as never), "callback: undefined is invalid: expected a function"],
  ["onFrame", () => client.onFrame(() => {}, { once: true } as never), 'option: "once" is invalid: expected '],
  ["onUpdate", () => client.onUpdate({ symbols: "A" }, "x" as never), 'callback: "x" is invalid: expected a function'],
  ["on", () => client.on("quote" as never, () => {}), 'event: "quote" is invalid: expected connection, authenticated, state, gap, '],
  ["on", () => client.on("gap", null as never), "callback: null is invalid: expected a function"],
  ["trades", () => client.trades("A", { signal: 1 as never }), "signal: 1 is invalid: expected an AbortSignal"],
  ["trades", () => client.trades(null as never), "symbols: null is invalid: expected a name, or a list of names"],
  ["exact", () => client.exact("book" as never, 0, "px"), 'channel: "book" is invalid: expected quote, trade, ticker'],
  ["exact", () => client.exact("quote", 0, "bid" as never), 'field: "bid" is invalid: expected bidPx, bidSz, askPx'],
  ["book", () => client.book(undefined as never), "instrument: undefined is invalid: expected a row or a symbol"],
  ["state", () => client.state(null as never), "instrument: null is invalid: expected a row or a symbol"],
  ["format", () => client.format(7, 5), "RangeError: row: 7 is out of range: expected the row of an instrument"],
  ["format", () => client.format(7, 0.5), "mantissa: 0.5 is out of range: expected a whole number"],
  ["format", () => client.formatSize(7, "5" as never), 'mantissa: "5" is invalid: expected a whole number'],
  ["decimal", () => decimal(5, undefined as never), "exponent: undefined is invalid: expected a whole number"],
  ["decimal", () => decimal(Infinity, -2), "mantissa: Infinity is out of range: expected a whole number"],
])("%s: %s", (_, call, expected) => {
  expect(errorOf(call)).toContain(expected);
});

test("an unknown row without a value has no text", () => {
  expect([client.format(-1, client.quotes.bidPx[-1]), client.format(9, NaN), client.formatSize(9, null)]).toEqual([
    ...["", "", ""],
  ]);
});

test("assignments to a subscription are checked, and it stays as it was", async () => {
  const list = client.subscribe({ symbols: "BTC-USD" });
  expect(errorOf(() => (list.wantedMs = -1))).toBe(`RangeError: wantedMs: -1 is out of range: ${MS}`);
  expect(errorOf(() => (list.symbols = ["*A"]))).toContain(`symbols: "*A" is invalid: ${NAMES}`);
  await settle();
  server.last.welcome();
  server.last.grant([definition(1, "BTC-USD")]);
  expect([list.symbols, list.wantedMs]).toEqual([["BTC-USD"], null]);
});

test("a URL function that returns nothing is reported, and is asked again", async () => {
  let calls = 0;
  const own = server.client({ url: (() => void calls++) as never });
  await settle();
  expect(own.connection.reason).toContain('url: "" is invalid: expected a ws, wss, http or https URL');
  await settle(1000);
  expect(calls).toBeGreaterThan(1);
  own.close();
});

describe("adapters", () => {
  const series = { setData: () => {}, update: () => {} };
  const grid = { applyTransactionAsync: () => {} };
  const table = { update: () => {}, remove: () => {} };
  const chart = { setData: () => {} };
  const symbol = "BTC-USD";
  const HISTORY = "expected an http or https URL, or null for no history";
  const ONE = "expected the name of one instrument";

  const bars = (options: object): unknown => followBars(client, series, options as never);
  const rows = (options: object): unknown => feedGrid(client, grid, options as never);
  const columns = (options: object): unknown => feedTable(client, table, options as never);
  const points = (options: object): unknown => followSeries(client, chart, options as never);
  const other = {} as never;

  test.each<[string, () => unknown, string]>([
    ["no client", () => followBars(other, series, { symbol }), "client: an object is invalid: expected an object"],
    ["no series", () => followBars(client, other, { symbol }), "series: an object is invalid: expected an object"],
    ["bars", () => bars({ symbol: "BTC-*" }), `symbol: "BTC-*" is invalid: ${ONE}`],
    ["bars", () => bars({}), `symbol: undefined is invalid: ${ONE}`],
    ["bars", () => bars({ symbol, intervalS: 0 }), "intervalS: 0 is out of range: expected a whole number from 1"],
    ["bars", () => bars({ symbol, intervalS: 1.5 }), "intervalS: 1.5 is out of range: expected a whole number from 1"],
    ["bars", () => bars({ symbol, limit: 5001 }), "limit: 5001 is out of range: expected a whole number from 1 to 5"],
    ["bars", () => bars({ symbol, history: "ftp://x" }), `history: "ftp://x" is invalid: ${HISTORY}`],
    ["bars", () => bars({ symbol, history: "http://[" }), `history: "http://[" is invalid: ${HISTORY}`],
    ["bars", () => bars({ symbol, interval: 5 }), 'option: "interval" is invalid: expected symbol, intervalS, limit'],
    ["no grid", () => feedGrid(client, other, { symbols: "*" }), "grid: an object is invalid: expected an object"],
    ["rows", () => rows({ symbols: "*", row: 5 }), "row: 5 is invalid: expected a function"],
    ["rows", () => rows({}), "symbols: undefined is invalid: expected a name, or a list of names"],
    ["rows", () => rows(undefined as never), "options: undefined is invalid: expected an object"],
    ["no table", () => feedTable(client, other, { symbols: "*" }), "table: an object is invalid: expected an object"],
    ["columns", () => columns({ symbols: "*", onError: "x" }), 'onError: "x" is invalid: expected a function'],
    ["columns", () => columns({ symbols: "*", channels: "book!" }), 'channels: "book!" is invalid: expected quote'],
    ["no chart", () => followSeries(client, other, { symbol }), "chart: an object is invalid: expected an object"],
    ["points", () => points({ symbol, points: 0 }), "points: 0 is out of range: expected a whole number from 1"],
    ["points", () => points({ symbol, fields: [] }), "fields: an object is invalid: expected a list of bid"],
    ["points", () => points({ symbol, fields: ["mid"] }), 'fields: "mid" is invalid: expected bid, ask, last'],
    ["points", () => points({ symbol: "*" }), `symbol: "*" is invalid: ${ONE}`],
  ])("%s: %s", (_, call, expected) => {
    expect(errorOf(call)).toContain(expected);
  });

  test("without a page, the history of bars has to be named", () => {
    vi.stubGlobal("location", undefined);
    const text = errorOf(() => followBars(client, series, { symbol }));
    vi.unstubAllGlobals();
    expect(text).toContain(`history: undefined is invalid: ${HISTORY}`);
    expect(errorOf(() => followBars(client, series, { symbol, history: null }))).toBe("nothing was thrown");
  });
});

test("a platform without a WebSocket is told at once", () => {
  vi.stubGlobal("WebSocket", undefined);
  try {
    expect(errorOf(() => connect({ url: "ws://127.0.0.1:1" }))).toBe(
      "TypeError: WebSocket: there is none here: expected connect({ url, WebSocket }), with that of ws in Node",
    );
  } finally {
    vi.unstubAllGlobals();
  }
});
