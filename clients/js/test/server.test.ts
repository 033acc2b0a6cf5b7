/** Against the real server. Without a binary the tests are skipped, with a message. */

import { createServer, connect as dial, type Server, type Socket } from "node:net";
import { describe, expect, test } from "vitest";
import WebSocket from "ws";
import type { Gap, InstrumentState } from "../src/types";
import { book, packet, quote, ticker, trade } from "./fake";
import { clientOf, open, program, Running, start, until } from "./running";

/** Only what publishers send. */
const PUBLISHED = ["--feed", "none", "--publish-token", "test-publish-token"];

/** Sends definitions and records. */
class Publisher {
  readonly #answers: ((answer: any) => void)[] = [];

  private constructor(readonly socket: WebSocket) {
    socket.on("message", (text) => this.#answers.shift()?.(JSON.parse(String(text))));
    open.push(this);
  }

  static async to(port: number): Promise<Publisher> {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/v1/publish?token=test-publish-token`);
    await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
    return new Publisher(socket);
  }

  /** Resolves with the id of the instrument, valid for this publisher. */
  async define(symbol: string, pxExp: number, szExp: number): Promise<number> {
    const instruments = [{ symbol, px_exp: pxExp, sz_exp: szExp }];
    const answer = new Promise<any>((resolve) => this.#answers.push(resolve));
    this.socket.send(JSON.stringify({ op: "define", id: 1, instruments }));
    const { type, message, instruments: defined } = await answer;
    if (type !== "defined") throw new Error(`define: ${message}`);
    return defined[0].instrument;
  }

  send(...records: ArrayBuffer[]): void {
    this.socket.send(packet(records));
  }

  /** Ends its instruments. */
  close(): void {
    this.socket.close(1000);
  }
}

describe.skipIf(program === undefined)("with a server", () => {
  test("values equal the HTTP snapshot", async () => {
    const { port } = await start();
    const client = clientOf(port, { conflateMs: 0 });
    const { ready } = client.subscribe({ symbols: "*", channels: ["quote", "trade", "ticker", "book"] });
    expect(await ready).toMatchObject({ unknown: [], denied: [] });
    await until(client, () => client.instruments.length === 20 && client.quotes.sequence[19] > 0);
    let compared = 0;
    for (const { row, symbol } of client.instruments) {
      // Values change meanwhile: they are compared only at the same sequence.
      for (let attempt = 0; attempt < 50; attempt++) {
        const snapshot: any = await (await fetch(`http://127.0.0.1:${port}/v1/snapshot/${symbol}`)).json();
        const quote = snapshot.quote ?? snapshot.records?.find((one: any) => one.type === "quote");
        await until(client, () => client.quotes.sequence[row] >= quote.sequence);
        if (client.quotes.sequence[row] !== quote.sequence) continue;
        const { bidPx, bidSz, askPx, askSz } = client.quotes;
        expect([client.format(row, bidPx[row]), client.formatSize(row, bidSz[row])]).toEqual([
          quote.bid_px,
          quote.bid_sz,
        ]);
        expect([client.format(row, askPx[row]), client.formatSize(row, askSz[row])]).toEqual([
          quote.ask_px,
          quote.ask_sz,
        ]);
        compared++;
        break;
      }
    }
    expect(compared).toBeGreaterThan(10);
  });

  test("subscriptions and their intervals change live", async () => {
    const { port } = await start();
    const client = clientOf(port, { conflateMs: 50 });
    const one = client.subscribe({ symbols: "BTC-USD" });
    expect(await one.ready).toMatchObject({ conflateMs: 50 });
    await until(client, () => client.state("BTC-USD") === "LIVE");
    one.wantedMs = 700;
    await until(client, () => one.conflateMs === 1000);
    const other = client.subscribe({ symbols: ["ETH-USD", "NO-SUCH"], channels: ["trade"] });
    expect(await other.ready).toMatchObject({ unknown: ["NO-SUCH"] });
    one.close();
    await until(client, () => client.state("BTC-USD") === "STALE");
    expect(client.state("ETH-USD")).toBe("LIVE");
  });

  test("a restart leads through STALE and RESYNCING to LIVE with new values", async () => {
    const first = await start();
    const client = clientOf(first.port, { reconnect: { firstMs: 50, mostMs: 100 } });
    const seen: InstrumentState[] = [];
    client.on("state", ({ symbol, state }) => symbol === "BTC-USD" && seen.push(state));
    client.subscribe({ symbols: "*", channels: ["quote", "trade", "book"] });
    await until(client, () => client.state("BTC-USD") === "LIVE");
    const { epoch } = client.connection;
    await first.kill();
    await until(client, () => client.state("BTC-USD") === "STALE");
    await new Running(first.port, ["--feed", "sim:instruments=20,rate=2000,seed=2"]).ready();
    await until(client, () => client.state("BTC-USD") === "LIVE");
    expect(seen).toEqual(["LIVE", "STALE", "RESYNCING", "LIVE"]);
    expect(client.connection.epoch).not.toBe(epoch);
    const row = client.instruments.row("BTC-USD");
    const snapshot: any = await (await fetch(`http://127.0.0.1:${first.port}/v1/snapshot/BTC-USD`)).json();
    const sequence = (snapshot.quote ?? snapshot).sequence;
    await until(client, () => client.quotes.sequence[row] >= sequence);
    expect(client.book(row)!.suspect).toBe(false);
  });

  test("a reset connection resumes without a gap in the trades", async () => {
    const { port } = await start();
    const proxy = await ResettingProxy.to(port);
    const client = clientOf(proxy.port, { reconnect: { firstMs: 20, mostMs: 50 } });
    const gaps: Gap[] = [];
    client.on("gap", (gap) => gaps.push(gap));
    const sequences = new Map<number, number[]>();
    client.onFrame(({ trades }) => {
      for (let index = 0; index < trades.length; index++) {
        const list = sequences.get(trades.row[index]) ?? [];
        list.push(trades.sequence[index]);
        sequences.set(trades.row[index], list);
      }
    });
    client.subscribe({ symbols: "*", channels: ["trade", "quote", "book"] });
    const count = (): number => [...sequences.values()].reduce((sum, list) => sum + list.length, 0);
    for (let round = 1; round <= 5; round++) {
      const enough = count() + 300;
      await until(client, () => count() >= enough && client.connection.phase === "live");
      proxy.resetAll();
      await until(client, () => client.stats.reconnects >= 0 && client.connection.phase === "waiting");
      await until(client, () => client.connection.phase === "live");
    }
    const enough = count() + 300;
    await until(client, () => count() >= enough);
    expect(client.connection.resumed).toBe("replay");
    expect(gaps).toEqual([]);
    for (const list of sequences.values()) {
      expect(list).toEqual(Array.from({ length: list.length }, (_, index) => list[0] + index));
    }
    for (const { row } of client.instruments) expect(client.book(row)!.suspect).toBe(false);
  });

  test("books stay correct while a pattern is opened and closed", async () => {
    const { port } = await start();
    const client = clientOf(port, { conflateMs: 0 });
    const gaps: Gap[] = [];
    client.on("gap", (gap) => gaps.push(gap));
    client.subscribe({ symbols: ["BTC-USD", "ETH-USD"], channels: ["trade", "book"] });
    // A server that has just started may not have its instruments yet.
    await until(client, () => client.state("BTC-USD") === "LIVE" && client.lastTrades.sequence[0] > 0);
    for (let round = 0; round < 5; round++) {
      const all = client.subscribe({ symbols: "*", channels: ["trade", "book"] });
      await all.ready;
      const from = client.lastTrades.sequence[client.instruments.row("BTC-USD")];
      all.close();
      await until(client, () => client.lastTrades.sequence[client.instruments.row("BTC-USD")] > from + 5);
    }
    expect(gaps).toEqual([]);
    expect([client.state("BTC-USD"), client.book("BTC-USD")!.suspect]).toEqual(["LIVE", false]);
  });

  test("stats measure round trip, clock, latency and rates", async () => {
    const { port } = await start();
    const client = clientOf(port);
    client.subscribe({ symbols: "*", channels: ["quote", "trade"] });
    await until(client, () => client.stats.updatesPerSecond > 100 && client.stats.latencyP99Ms > 0);
    const { rttMs, clockOffsetMs, latencyP50Ms, latencyP99Ms, messagesPerSecond, bytesPerSecond } = client.stats;
    expect(rttMs).toBeGreaterThan(0);
    expect(Math.abs(clockOffsetMs)).toBeLessThan(1000);
    expect(latencyP50Ms).toBeLessThanOrEqual(latencyP99Ms);
    expect(messagesPerSecond).toBeGreaterThan(0);
    expect(bytesPerSecond).toBeGreaterThan(1000);
  });

  test("a name that is defined later begins with its definition", async () => {
    const { port } = await start(...PUBLISHED);
    const proxy = await ResettingProxy.to(port);
    const client = clientOf(proxy.port, { reconnect: { firstMs: 20, mostMs: 50 } });
    const problems: string[] = [];
    client.on("gap", ({ symbol }) => problems.push(`gap ${symbol}`));
    client.on("error", ({ code, symbols }) => problems.push(`${code} ${symbols}`));
    const pattern = client.subscribe({ symbols: "BESIDE*", channels: "trade" });
    const names = ["ALONE", "BESIDE-IT", "WHILE-LOST"];
    const named = client.subscribe({ symbols: names, channels: ["quote", "book"] });
    expect([(await pattern.ready).unknown, (await named.ready).unknown]).toEqual([[], names]);
    const publisher = await Publisher.to(port);
    const publish = async (symbol: string): Promise<void> => {
      const id = await publisher.define(symbol, -2, 0);
      publisher.send(quote(id, 0, 100, 101), trade(id, 0, 100), book(id, 0, "S", [[100, 1, "B"]]));
    };
    const { quotes, lastTrades, instruments } = client;
    const hasCome = (symbol: string): boolean =>
      client.state(symbol) === "LIVE" &&
      client.book(symbol)?.bids.length === 1 &&
      quotes.bidPx[instruments.row(symbol)] === 100;
    await publish("ALONE");
    await publish("BESIDE-IT");
    const traded = (): boolean => lastTrades.px[instruments.row("BESIDE-IT")] === 100;
    await until(client, () => hasCome("ALONE") && hasCome("BESIDE-IT") && traded());
    expect(named.unknown).toEqual(["WHILE-LOST"]);
    proxy.resetAll();
    await until(client, () => client.connection.phase === "waiting");
    await publish("WHILE-LOST");
    await until(client, () => hasCome("WHILE-LOST"));
    expect(named.unknown).toEqual([]);
    // Trades are subscribed by the pattern only.
    expect(names.map((symbol) => lastTrades.sequence[instruments.row(symbol)])).toEqual([0, 1, 0]);
    expect(problems).toEqual([`unknown_symbol ${names}`]);
  });

  test("values go on exactly when another definition changes the exponents", async () => {
    const { port } = await start(...PUBLISHED);
    const client = clientOf(port);
    const problems: string[] = [];
    client.on("gap", ({ symbol }) => problems.push(`gap ${symbol}`));
    client.on("error", ({ code, message }) => problems.push(`${code} ${message}`));
    const seen: string[] = [];
    // A trade from before the change comes with the former or the new number of decimals.
    client.onUpdate({ symbols: "COIN", channels: "trade" }, ({ price, size }) =>
      seen.push(`${Number(price)} x ${size.replace(/\.0+$/, "")}`),
    );
    await client.subscribe({ symbols: "COIN", channels: ["quote", "ticker", "book"] }).ready;
    const publisher = await Publisher.to(port);
    const id = await publisher.define("COIN", -2, 0);
    const levels: [number, number, "B" | "A"][] = [[100, 7, "B"], [99, 8, "B"], [103, 9, "A"]];
    publisher.send(quote(id, 0, 100, 103, 0x80, [7, 9]), trade(id, 0, 102, 0x80, 5), book(id, 0, "S", levels));
    publisher.send(ticker(id, 0, [102, 90, 110, 80, 1234, 5678, 100, 103]));
    const { quotes, tickers, lastTrades } = client;
    await until(client, () => {
      return quotes.bidPx[0] === 100 && tickers.lastPx[0] === 102 && client.book(0)?.bids.length === 2;
    });
    publisher.send(trade(id, 0, 103, 0x80, 6));
    expect(await publisher.define("COIN", -5, -3)).toBe(id);
    await until(client, () => {
      return quotes.bidPx[0] === 100_000 && tickers.lastPx[0] === 102_000 && client.state(0) === "LIVE";
    });
    expect([client.instruments.pxExp[0], client.instruments.szExp[0]]).toEqual([-5, -3]);
    expect([quotes.bidSz[0], quotes.askPx[0], quotes.askSz[0]]).toEqual([7000, 103_000, 9000]);
    expect([tickers.volume[0], tickers.turnover[0]]).toEqual([1_234_000, 5_678_000]);
    expect([lastTrades.px[0], lastTrades.sz[0], lastTrades.sequence[0]]).toEqual([103_000, 6000, 2]);
    const { bids, asks, suspect } = client.book(0)!;
    expect([[...bids.px], [...bids.sz], [...asks.px], suspect]).toEqual([
      ...[[100_000, 99_000], [7000, 8000], [103_000], false],
    ]);
    expect(problems).toEqual(["unknown_symbol COIN: no such instrument yet"]);
    // Sequences go on; digits beyond 2^53 stay.
    const size = 2n ** 53n + 1n;
    publisher.send(book(id, 0, "D", [[100_001, 1, "B"], [99_000, 0, "B"]]), trade(id, 0, 100_001, 0x80, size));
    publisher.send(quote(id, 0, 100_001, 103_000, 0x80, [1, size]));
    const best = (): number => client.book(0)!.bids.px[0];
    await until(client, () => quotes.bidPx[0] === 100_001 && best() === 100_001 && seen.length === 3);
    expect([[...client.book(0)!.bids.px], client.book(0)!.suspect]).toEqual([[100_001, 100_000], false]);
    expect([client.exact("quote", 0, "askSz"), client.state(0)]).toEqual([size, "LIVE"]);
    expect(seen).toEqual(["1.02 x 5", "1.03 x 6", "1.00001 x 9007199254740.993"]);
    expect(problems.filter((text) => text.startsWith("gap"))).toEqual([]);
  });

  test("an ended instrument is released for another, and its name is a new row later", async () => {
    const { port } = await start(...PUBLISHED, "--instruments-max", "2");
    const client = clientOf(port);
    const events: string[] = [];
    client.on("instrument", ({ symbol, row }) => events.push(`defined ${symbol} ${row}`));
    client.on("released", ({ symbol, row }) => events.push(`released ${symbol} ${row}`));
    client.on("gap", ({ symbol }) => events.push(`gap ${symbol}`));
    const named = client.subscribe({ symbols: "OLD", channels: ["quote", "book"] });
    client.subscribe({ symbols: "*", channels: "trade" });
    await named.ready;
    const publish = async (from: Publisher, symbol: string, px: number): Promise<void> => {
      const id = await from.define(symbol, 0, 0);
      from.send(quote(id, 0, px, px + 1), trade(id, 0, px), book(id, 0, "S", [[px, 1, "B"]]));
    };
    const first = await Publisher.to(port);
    await publish(first, "OLD", 10);
    await until(client, () => client.state("OLD") === "LIVE" && client.lastTrades.px[0] === 10);
    first.close();
    // The newest values are sent, though the instrument has ended.
    const hasCome = (px: number): boolean =>
      client.quotes.bidPx[client.instruments.row("OLD")] === px && client.book("OLD")?.bids.px[0] === px;
    await until(client, () => client.state("OLD") === "ENDED" && hasCome(10));

    const second = await Publisher.to(port);
    await publish(second, "KEPT", 20);
    await publish(second, "NEXT", 30);
    await until(client, () => client.state("NEXT") === "LIVE" && client.instruments.row("OLD") === -1);
    expect([[...client.instruments].map(({ symbol }) => symbol), named.unknown]).toEqual([["KEPT", "NEXT"], ["OLD"]]);
    expect([client.book("OLD"), client.quotes.bidPx[0], client.state("OLD")]).toEqual([undefined, NaN, "STALE"]);
    second.close();
    await until(client, () => client.state("KEPT") === "ENDED" && client.state("NEXT") === "ENDED");

    await publish(await Publisher.to(port), "OLD", 40);
    await until(client, () => client.state("OLD") === "LIVE" && hasCome(40));
    expect([client.instruments.row("OLD"), client.quotes.sequence[3], named.unknown]).toEqual([3, 1, []]);
    expect([...client.book("OLD")!.bids.px]).toEqual([40]);
    expect(events.filter((text) => text.endsWith("0") || text.includes("OLD"))).toEqual([
      ...["defined OLD 0", "released OLD 0", "defined OLD 3"],
    ]);
    expect(events.filter((text) => text.startsWith("gap"))).toEqual([]);
  });
});

/** A TCP proxy that can reset its connections, without a closing handshake. */
class ResettingProxy {
  readonly #ends = new Set<Socket>();

  private constructor(
    readonly server: Server,
    readonly port: number,
  ) {}

  static async to(port: number): Promise<ResettingProxy> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const proxy = new ResettingProxy(server, (server.address() as { port: number }).port);
    server.on("connection", (near) => {
      const far = dial(port, "127.0.0.1");
      for (const end of [near, far]) {
        proxy.#ends.add(end);
        end.on("error", () => {});
        end.on("close", () => (near.destroy(), far.destroy(), proxy.#ends.delete(end)));
      }
      near.pipe(far);
      far.pipe(near);
    });
    open.push(proxy);
    return proxy;
  }

  resetAll(): void {
    for (const end of this.#ends) end.resetAndDestroy();
  }

  close(): void {
    this.resetAll();
    this.server.close();
  }
}
