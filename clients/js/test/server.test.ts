/**
 * Against the real server: the binary in TICKCAST_BIN, or else of the target folder. Without one the tests are skipped,
 * with a message.
 */

import { spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { createServer, connect as dial, type Server, type Socket } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import WebSocket from "ws";
import { connect } from "../src/index";
import type { Client, ConnectOptions, Gap, InstrumentState } from "../src/types";

const built = ["release", "debug"].map((name) => new URL(`../../../target/${name}/tickcast`, import.meta.url).pathname);
const program = [process.env.TICKCAST_BIN, ...built].find((path) => path !== undefined && existsSync(path));
if (program === undefined) console.log("SKIPPED: no server binary: run cargo build, or set TICKCAST_BIN");

// The server reads variables with this prefix as settings.
const { TICKCAST_BIN: _, ...env } = process.env;

const open: { close(): unknown }[] = [];
afterEach(() => {
  for (const one of open.splice(0).reverse()) one.close();
});

const MARKET = "sim:instruments=20,rate=2000,seed=1";

class Running {
  readonly #child: ChildProcess;
  #output = "";

  constructor(
    readonly port: number,
    args: string[],
  ) {
    const own = ["--listen", `127.0.0.1:${port}`, "--log", "info", ...args];
    this.#child = spawn(program!, own, { env, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) stream.on("data", (text) => (this.#output += text));
    open.push(this);
  }

  /** Resolves when the server is ready. */
  async ready(): Promise<this> {
    for (;;) {
      const answer = await fetch(`http://127.0.0.1:${this.port}/readyz`).catch(() => null);
      if (answer?.ok === true) return this;
      if (this.#child.exitCode !== null) throw new Error(`the server ended: ${this.#output}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Kills the process, and resolves when it has exited. */
  async kill(): Promise<void> {
    const exited = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.kill("SIGKILL");
    await exited;
  }

  close(): void {
    this.#child.kill("SIGKILL");
  }
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const { port } = probe.address() as { port: number };
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

async function start(...args: string[]): Promise<Running> {
  return new Running(await freePort(), ["--feed", MARKET, ...args]).ready();
}

function clientOf(port: number, options: ConnectOptions = {}): Client {
  const client = connect({ url: `ws://127.0.0.1:${port}`, WebSocket: WebSocket as never, ...options });
  open.push(client);
  return client;
}

/** Resolves when a condition holds, checked at every frame and change of the connection. */
function until(client: Client, holds: () => boolean): Promise<void> {
  return new Promise((resolve) => {
    const ends: (() => void)[] = [];
    const check = (): void => {
      if (!holds()) return;
      for (const end of ends.splice(0)) end();
      resolve();
    };
    ends.push(client.onFrame(check), client.on("connection", check));
    check();
  });
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
