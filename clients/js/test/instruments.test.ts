/** Definitions that change, and instruments that are released. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { feedGrid } from "../src/adapters/ag-grid";
import { feedTable } from "../src/adapters/perspective";
import { book, definition, FakeServer, gap, quote, settle, status, ticker, trade } from "./fake";

let server: FakeServer;
beforeEach(() => {
  vi.useFakeTimers();
  server = new FakeServer();
});
afterEach(() => vi.useRealTimers());

const BTC = definition(1, "BTC-USD");
const ETH = definition(2, "ETH-USD");
const ALL = ["quote", "trade", "ticker", "book"] as const;

async function granted(...records: ArrayBuffer[]): Promise<void> {
  await settle();
  server.last.welcome();
  server.last.grant(records);
  await settle();
}

async function send(...records: ArrayBuffer[]): Promise<void> {
  server.last.packet(records);
  await settle();
}

describe("new exponents", () => {
  test("the newest values come again, also with the sequences that they have", async () => {
    const client = server.client();
    client.subscribe({ symbols: "*", channels: ALL });
    const tick = (sequence: number, last: number): ArrayBuffer => ticker(1, sequence, [last, 1, 1, 1, 1, 1, 1, 1]);
    await granted(BTC, ETH, quote(1, 5, 100, 101), tick(7, 100), book(1, 9, "S", [[100, 1, "B"]]), quote(2, 3, 7, 8));
    server.last.takeRequests();
    await send(
      definition(1, "BTC-USD", -3),
      book(1, 9, "S", [[1000, 1, "B"]]),
      quote(1, 5, 1000, 1010),
      tick(7, 1000),
    );
    const { quotes, tickers } = client;
    expect([quotes.bidPx[0], tickers.lastPx[0], quotes.bidPx[1]]).toEqual([1000, 1000, 7]);
    expect([[...client.book(0)!.bids.px], client.book(0)!.suspect]).toEqual([[1000], false]);
    expect([client.state(0), client.state(1)]).toEqual(["LIVE", "LIVE"]);
    // Sequences go on.
    await send(quote(1, 6, 1001, 1011), quote(1, 6, 9, 9), book(1, 10, "D", [[1001, 2, "B"]]));
    expect([quotes.bidPx[0], [...client.book(0)!.bids.px]]).toEqual([1001, [1001, 1000]]);
    expect(server.last.takeRequests()).toEqual([]);
    client.close();
  });

  test("values at the old exponents are gone before the new ones come", async () => {
    const client = server.client();
    client.subscribe({ symbols: "*", channels: ALL });
    await granted(BTC, quote(1, 1, 100, 101), book(1, 1, "S", [[100, 1, "B"]]));
    server.last.packet([quote(1, 2, 102, 103)]);
    await send(definition(1, "BTC-USD", -3, -4));
    expect([client.quotes.bidPx[0], client.quotes.sequence[0]]).toEqual([NaN, 0]);
    expect([client.book(0)!.bids.length, client.book(0)!.suspect, client.state(0)]).toEqual([0, true, "RESYNCING"]);
    client.close();
  });

  test("a book that comes as a change and not as a snapshot is requested", async () => {
    const client = server.client();
    client.subscribe({ symbols: "BTC-USD", channels: "book" });
    await granted(BTC, book(1, 1, "S", [[100, 1, "B"]]));
    server.last.takeRequests();
    await send(definition(1, "BTC-USD", -3), book(1, 2, "D", [[1030, 1, "B"]]), book(1, 3, "D", [[1040, 1, "B"]]));
    expect(client.book(0)!.bids.length).toBe(0);
    expect(server.last.takeRequests()).toMatchObject([{ op: "unsubscribe" }, { op: "subscribe", channels: ["book"] }]);
    await send(book(1, 3, "S", [[1040, 1, "B"]]));
    expect([client.book(0)!.bids.length, client.state(0)]).toEqual([1, "LIVE"]);
    client.close();
  });

  test("undelivered trades and the last one are scaled exactly, or dropped", async () => {
    const client = server.client();
    const seen: string[] = [];
    const lost: number[] = [];
    client.on("lag", ({ dropped }) => lost.push(dropped));
    client.onUpdate({ symbols: "*", channels: "trade" }, ({ price, size, px }) => seen.push(`${price} ${size} ${px}`));
    await granted(BTC, ETH);
    await settle(2000);
    server.last.packet([trade(1, 1, 102), trade(2, 1, 50)]);
    await send(definition(1, "BTC-USD", -4, -9), trade(1, 2, 10_300, 0x80, 40));
    expect(seen).toEqual(["1.0200 0.000000030 10200", "0.50 0.00000003 50", "1.0300 0.000000040 10300"]);
    // Delivered before: the newest trade stays, at the new exponents.
    await send(definition(1, "BTC-USD", -5, -9));
    expect([client.lastTrades.px[0], client.lastTrades.sz[0], client.lastTrades.sequence[0]]).toEqual([103_000, 40, 2]);
    // With a decimal less than the price has.
    server.last.packet([trade(1, 3, 103_001), trade(1, 4, 103_010)]);
    await send(definition(1, "BTC-USD", -4, -9));
    expect(seen.slice(3)).toEqual(["1.0301 0.000000003 10301"]);
    expect(lost).toEqual([1]);
    client.close();
  });

  test("a scaled trade beyond 2^53 keeps its digits, one beyond 64 bits is dropped", async () => {
    const client = server.client();
    const seen: string[] = [];
    client.onUpdate({ symbols: "BTC-USD", channels: "trade" }, ({ size, inexact }) => seen.push(`${size} ${inexact}`));
    await granted(BTC);
    server.last.packet([trade(1, 1, 1, 0x80, 2n ** 53n + 1n), trade(1, 2, 1, 0x80, 10n ** 18n)]);
    await send(definition(1, "BTC-USD", -2, -9));
    expect(seen).toEqual(["90071992.547409930 true"]);
    expect(client.stats.tradesDropped).toBe(1);
    client.close();
  });

  test("another venue or tick size keeps all values", async () => {
    const client = server.client();
    const venues: string[] = [];
    client.on("instrument", ({ venue }) => venues.push(venue));
    client.subscribe({ symbols: "BTC-USD", channels: ALL });
    await granted(BTC, quote(1, 1, 100, 101), book(1, 1, "S", [[100, 1, "B"]]));
    await send(definition(1, "BTC-USD", -2, -8, "kraken"));
    expect(venues).toEqual(["", "kraken"]);
    expect([client.instruments.venue(0), client.quotes.bidPx[0], client.state(0)]).toEqual(["kraken", 100, "LIVE"]);
    expect(client.book(0)!.bids.length).toBe(1);
    client.close();
  });
});

describe("released instruments", () => {
  test("the client forgets the instrument after its last values, and tells", async () => {
    const client = server.client();
    const seen: string[] = [];
    client.onUpdate({ symbols: "*", channels: "trade" }, ({ symbol, price }) => seen.push(`${symbol} ${price}`));
    client.on("released", ({ row, symbol }) => seen.push(`released ${row} ${symbol}`));
    client.subscribe({ symbols: "*", channels: ["quote", "book"] });
    await granted(BTC, ETH, quote(1, 1, 100, 101), book(1, 1, "S", [[100, 1, "B"]]));
    await send(status(1, "E"));
    expect(client.state("BTC-USD")).toBe("ENDED");
    await send(trade(1, 1, 55), status(1, "R"));
    expect(seen).toEqual(["BTC-USD 0.55", "released 0 BTC-USD"]);
    expect([client.instruments.row("BTC-USD"), client.instruments.symbol(0)]).toEqual([-1, ""]);
    expect([...client.instruments].map(({ symbol }) => symbol)).toEqual(["ETH-USD"]);
    expect([client.book(0), client.quotes.bidPx[0], client.state(0), client.state("BTC-USD")]).toEqual([
      ...[undefined, NaN, "STALE", "STALE"],
    ]);
    // What still comes under its id is ignored.
    await send(quote(1, 2, 1, 2), gap(1, 2, 5, 6), status(1, "L"), quote(2, 1, 5, 6));
    expect([client.quotes.bidPx[0], client.quotes.bidPx[1], client.stats.gaps]).toEqual([NaN, 5, 0]);
    // Nor does a restart of the server lose trades of it.
    const gaps: string[] = [];
    client.on("gap", ({ symbol }) => gaps.push(symbol));
    server.last.closeWith(1006);
    await settle(1);
    server.last.welcome(8);
    await settle();
    expect(gaps).toEqual([]);
    client.close();
  });

  test("the same symbol is a new instrument when it is defined again", async () => {
    const client = server.client();
    const order: string[] = [];
    client.on("instrument", ({ row }) => order.push(`defined ${row}`));
    client.on("released", ({ row }) => order.push(`released ${row}`));
    const subscription = client.subscribe({ symbols: "BTC-USD", channels: ALL });
    await granted(BTC, quote(1, 90, 100, 101), book(1, 50, "S", [[100, 1, "B"]]));
    await send(status(1, "E"), status(1, "R"));
    expect(subscription.unknown).toEqual(["BTC-USD"]);
    await send(definition(7, "BTC-USD", -4), quote(7, 1, 5, 6), book(7, 1, "D", [[5, 1, "B"]]));
    const row = client.instruments.row("BTC-USD");
    expect([row, client.quotes.bidPx[row], client.state(row), subscription.unknown]).toEqual([1, 5, "LIVE", []]);
    expect([...client.book("BTC-USD")!.bids.px]).toEqual([5]);
    expect(order).toEqual(["defined 0", "released 0", "defined 1"]);
    expect(server.last.takeRequests()).toEqual([]);
    client.close();
  });

  test("a release and a definition in one batch stay apart", async () => {
    const client = server.client();
    const order: string[] = [];
    client.onUpdate({ symbols: "*", channels: "trade" }, ({ row, price }) => order.push(`${row} ${price}`));
    client.on("released", ({ row }) => order.push(`released ${row}`));
    await granted(BTC, trade(1, 1, 100));
    await send(trade(1, 2, 101), status(1, "R"), definition(5, "BTC-USD", -3), trade(5, 1, 7));
    expect(order).toEqual(["0 1.00", "0 1.01", "1 0.007", "released 0"]);
    expect(client.instruments.row("BTC-USD")).toBe(1);
    client.close();
  });

  test("a definition under another id is a release that was missed", async () => {
    const client = server.client();
    const released: number[] = [];
    client.on("released", ({ row }) => released.push(row));
    client.subscribe({ symbols: "*" });
    await granted(BTC, quote(1, 90, 100, 101));
    await send(definition(6, "BTC-USD"), quote(6, 1, 5, 6));
    expect([released, client.instruments.row("BTC-USD"), client.quotes.bidPx[1]]).toEqual([[0], 1, 5]);
    client.close();
  });

  test("a name that the server no longer knows after a lost connection was released", async () => {
    const client = server.client();
    const released: string[] = [];
    client.on("released", ({ symbol }) => released.push(symbol));
    client.subscribe({ symbols: "BTC-USD" });
    await granted(BTC, quote(1, 90, 100, 101));
    server.last.closeWith(1006);
    await settle(1);
    server.last.welcome();
    server.last.grant([], { how: "snapshot", unknown: ["BTC-USD"] });
    await settle();
    expect([released, client.instruments.row("BTC-USD")]).toEqual([["BTC-USD"], -1]);
    client.close();
  });

  test("a letter of a later version leaves the state as it is", async () => {
    const client = server.client();
    client.subscribe({ symbols: "*" });
    await granted(BTC, status(1, "H"));
    await send(status(1, "x"), status(0, "?"), status(0, "R"), status(9, "R"));
    expect(client.state("BTC-USD")).toBe("HALTED");
    await send(status(1, "L"));
    expect(client.state("BTC-USD")).toBe("LIVE");
    client.close();
  });

  test("grids and tables drop the row, but not that of an instrument defined again", async () => {
    const client = server.client({ pull: "immediate" });
    const transactions: string[] = [];
    const names = (rows: { symbol: string }[] = []): string => rows.map(({ symbol }) => symbol).join();
    const grid = {
      applyTransactionAsync: ({ add, update, remove }: any) =>
        void transactions.push(`+${names(add)} ~${names(update)} -${names(remove)}`),
    };
    const removed: string[][] = [];
    feedGrid(client, grid, { symbols: "*" });
    feedTable(client, { update: () => {}, remove: (symbols) => void removed.push(symbols) }, { symbols: "*" });
    await granted(BTC, ETH);
    transactions.length = 0;
    await send(status(1, "R"));
    expect([transactions, removed]).toEqual([["+ ~ -BTC-USD"], [["BTC-USD"]]]);
    transactions.length = removed.length = 0;
    await send(status(2, "R"), definition(8, "ETH-USD"), quote(8, 1, 5, 6));
    expect(transactions.every((text) => text === "+ ~ETH-USD -")).toBe(true);
    expect(removed).toEqual([]);
    client.close();
  });
});
