/** Tokens, against the real server: lives of a few seconds, renewal, revocation, another user. */

import { createHash, createHmac, randomUUID } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { followBars } from "../src/adapters/lightweight-charts";
import type { Authenticated, Client, ConnectOptions, TokenRequest } from "../src/types";
import { clientOf, open, program, start, until, type Running } from "./running";

const SECRET = "a-secret-of-the-tests-with-32-bytes-or-more";
const API_KEY = "tk_0123456789abcdefghijkl";
const OPERATOR = "token-of-the-operator";
const BTC = { allow: [{ symbols: ["BTC-*"], channels: ["quote", "trade"] }] };
const EVERYTHING = { allow: [{ symbols: ["*"] }] };

/** A token of HS256, signed by Node's own HMAC. */
function tokenOf(user: string, seconds: number, rights: object = BTC, secret = SECRET): string {
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    ...{ iss: "https://id.example.com", aud: "tickcast", sub: user, iat: now, exp: now + seconds },
    ...{ jti: randomUUID(), tickcast: rights },
  };
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

/** A server that knows one issuer and one API key. */
async function identifying(toml = "", ...args: string[]): Promise<Running> {
  const folder = mkdtempSync(join(tmpdir(), "tickcast-"));
  open.push({ close: () => rmSync(folder, { recursive: true }) });
  const file = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const sha256 = createHash("sha256").update(API_KEY).digest("hex");
  const keys = `[[key]]\nuser = 'robot'\nsha256 = '${sha256}'\nrights.allow = [{ symbols = ['ETH-*'] }]\n`;
  const issuer =
    "[[issuer]]\nname = 'test'\niss = 'https://id.example.com'\naudience = ['tickcast']\nalgorithms = ['HS256']\n" +
    `secret_file = '${file("secret", SECRET)}'\nleeway_s = 0\n${toml}`;
  const config = ["--config", file("tickcast.toml", issuer), "--api-keys-file", file("keys.toml", keys)];
  return start(...config, "--operator-token", OPERATOR, ...args);
}

interface Seen {
  readonly client: Client;
  readonly errors: string[];
  readonly asked: TokenRequest[];
  readonly authenticated: Authenticated[];
}

/** A client that notes what happens to it. */
function opened(port: number, token: (call: number) => string | Promise<string>, options: ConnectOptions = {}): Seen {
  const [errors, asked, authenticated]: [string[], TokenRequest[], Authenticated[]] = [[], [], []];
  const provider = (why: TokenRequest): string | Promise<string> => token(asked.push(why));
  const client = clientOf(port, { token: provider, reconnect: { firstMs: 20, mostMs: 200 }, ...options });
  client.on("error", ({ code, message }) => errors.push(`${code}: ${message}`));
  client.on("authenticated", (identity) => authenticated.push(identity));
  return { client, errors, asked, authenticated };
}

describe.skipIf(program === undefined)("with a server that identifies its clients", () => {
  test("a token of some seconds is renewed on the connection, and the stream has no break", async () => {
    const { port } = await identifying();
    const { client, errors, asked, authenticated } = opened(port, () => tokenOf("u1", 5));
    client.subscribe({ symbols: "BTC-*", channels: ["quote", "trade"] });
    const phases: string[] = [];
    client.on("connection", ({ phase }) => phases.push(phase));
    await until(client, () => authenticated.length >= 4 && client.state("BTC-USD") === "LIVE");
    expect(authenticated.every(({ user, dropped }) => user === "u1" && dropped.length === 0)).toBe(true);
    expect(asked.slice(1).every(({ reason }) => reason === "expiring")).toBe(true);
    const [first, ...others] = phases;
    expect([first, new Set(others), errors, client.stats.reconnects]).toEqual([
      ...["connecting", new Set(["live"]), [], 0],
    ]);
    expect(client.connection.expiresAt).toBeGreaterThan(Date.now());
  });

  test("a function that throws is told, and a later token continues on a new connection", async () => {
    const { port } = await identifying("", "--token-grace-s", "1");
    const { client, errors, asked } = opened(port, (call) => {
      if (call === 1) return tokenOf("u1", 2);
      if (client.connection.phase === "live") throw new Error("the issuer is down");
      return tokenOf("u1", 600);
    });
    client.subscribe({ symbols: "BTC-USD" });
    await until(client, () => client.stats.reconnects === 1 && client.state("BTC-USD") === "LIVE");
    expect(errors[0]).toBe("token: no token: Error: the issuer is down");
    expect(asked.at(-1)).toEqual({ reason: "refused", message: "the token has expired" });
    expect(client.connection.resumed).toBe("replay");
  });

  test("a token that has expired, or is signed by another, ends the client after three, and is in no text", async () => {
    const { port } = await identifying();
    for (const [make, reason] of [
      [() => tokenOf("u1", -10), "token: expired"],
      [() => tokenOf("u1", 60, BTC, "another-secret-of-the-tests-with-32-bytes"), "token: not valid"],
    ] as const) {
      const tokens: string[] = [];
      const seen = opened(port, () => tokens[tokens.push(make()) - 1]);
      const subscription = seen.client.subscribe({ symbols: "BTC-USD" });
      const { phase, code, reason: told } = await seen.client.closed;
      expect([phase, code]).toEqual(["closed", 4001]);
      expect(told).toContain(reason);
      expect(seen.asked.map(({ reason }) => reason)).toEqual(["connect", "refused", "refused"]);
      await expect(subscription.ready).rejects.toThrow(reason);
      const texts = JSON.stringify([seen.errors, seen.asked, told]);
      for (const token of tokens) expect(texts).not.toContain(token.split(".")[2]);
    }
  });

  test("a token of another user, or a revoked one, ends the client for good", async () => {
    const { port } = await identifying();
    const other = opened(port, (call) => tokenOf(`u${call}`, 600 - 595 * Number(call === 1)));
    expect(await other.client.closed).toMatchObject({ code: 4003, reason: expect.stringContaining("of another user") });
    expect(other.errors).toEqual([expect.stringContaining("closed: the token is of another user")]);
    const { client, asked, errors } = opened(port, () => tokenOf("u3", 600));
    client.subscribe({ symbols: "BTC-USD" });
    await until(client, () => client.state("BTC-USD") === "LIVE");
    const headers = { authorization: `Bearer ${OPERATOR}` };
    const url = `http://127.0.0.1:${port}/v1/operator/revoke?user=u3`;
    expect((await fetch(url, { method: "POST", headers })).status).toBe(200);
    expect(await client.closed).toMatchObject({ code: 4001, reason: "the credential was revoked" });
    expect([asked.length, errors]).toEqual([1, ["closed: the credential was revoked"]]);
    const again = opened(port, () => tokenOf("u3", 600));
    expect(await again.client.closed).toMatchObject({ code: 4001, reason: expect.stringContaining("token: revoked") });
    expect(again.asked).toHaveLength(1);
  });

  test("rights that shrink and grow with the next token change what comes, on the same connection", async () => {
    const { port } = await identifying();
    const rights = [EVERYTHING, BTC, EVERYTHING];
    // The second and the third token are there when the test has seen the effect of the one before.
    const release: (() => void)[] = [];
    const gates = [1, 2].map(() => new Promise<void>((resolve) => release.push(resolve)));
    const { client, authenticated, errors } = opened(port, async (call) => {
      await gates[call - 2];
      return tokenOf("u1", call === 3 ? 600 : 20, rights[call - 1]);
    });
    const all = client.subscribe({ symbols: ["BTC-USD", "ETH-USD"], channels: ["quote", "trade", "book"] });
    const gaps: unknown[] = [];
    client.on("gap", (gap) => gaps.push(gap));
    await until(client, () => client.state("ETH-USD") === "LIVE" && client.book("BTC-USD") !== undefined);
    expect([all.denied, all.limited]).toEqual([[], []]);
    release[0]();
    await until(client, () => client.state("ETH-USD") === "STALE");
    expect([...authenticated.at(-1)!.dropped].sort()).toEqual(["BTC-USD", "ETH-USD"]);
    const lost = client.book("BTC-USD");
    expect([all.denied, all.limited, client.state("BTC-USD")]).toEqual([["ETH-USD"], ["BTC-USD"], "LIVE"]);
    const before = client.quotes.sequence[client.instruments.row("BTC-USD")];
    await until(client, () => client.quotes.sequence[client.instruments.row("BTC-USD")] > before);
    release[1]();
    await until(client, () => client.state("ETH-USD") === "LIVE");
    await until(client, () => all.limited.length === 0 && client.book("BTC-USD") !== lost);
    expect(client.book("BTC-USD")!.suspect).toBe(false);
    await until(client, () => client.lastTrades.sequence[client.instruments.row("ETH-USD")] > 0);
    expect(gaps).toEqual([]);
    expect([all.denied, client.stats.reconnects]).toEqual([[], 0]);
    expect(errors).toEqual(["denied: ETH-USD: not for this client"]);
  });

  test("an API key, an open server, anonymous rights, and a server that needs a token", async () => {
    const { port } = await identifying();
    const robot = opened(port, () => "", { token: API_KEY }).client;
    const held = robot.subscribe({ symbols: ["ETH-USD", "BTC-USD"] });
    expect(await held.ready).toMatchObject({ denied: ["BTC-USD"], unknown: [] });
    expect(robot.connection).toMatchObject({ user: "robot", expiresAt: 0, login: "required" });
    const without = clientOf(port);
    expect(await without.closed).toMatchObject({ code: 4001, reason: "the server requires a token" });

    const anonymous = "[anonymous]\nallow = [{ symbols = ['BTC-USD'], channels = ['quote'] }]";
    const some = await identifying(anonymous);
    const nameless = clientOf(some.port);
    expect(await nameless.subscribe({ symbols: ["BTC-USD", "ETH-USD"] }).ready).toMatchObject({ denied: ["ETH-USD"] });
    expect(nameless.connection).toMatchObject({ user: "", login: "optional" });
    const named = opened(some.port, () => tokenOf("u1", 600, EVERYTHING)).client;
    expect(await named.subscribe({ symbols: "ETH-USD" }).ready).toMatchObject({ denied: [] });
    expect(named.connection).toMatchObject({ user: "u1", login: "optional" });

    const all = opened((await start()).port, () => "whatever").client;
    await until(all, () => all.connection.phase === "live");
    expect(all.connection).toMatchObject({ user: "", login: "none" });
  });

  test("queries and the chart's history have the client's token", async () => {
    const { port } = await identifying();
    const { client } = opened(port, (call) => (call === 1 ? tokenOf("u1", -10) : tokenOf("u1", 600)));
    await until(client, () => client.connection.phase === "live");
    expect((await client.fetch("/v1/snapshot/BTC-USD")).status).toBe(200);
    expect((await client.fetch("/v1/snapshot/ETH-USD")).status).toBe(403);
    expect((await fetch(`http://127.0.0.1:${port}/v1/snapshot/BTC-USD`)).status).toBe(401);
    const bars = async (): Promise<number> =>
      (await (await client.fetch("/v1/bars/BTC-USD?interval_s=1")).json()).time.length;
    while ((await bars()) === 0) await new Promise((resolve) => setTimeout(resolve, 50));
    const shown = await new Promise<unknown[]>((resolve) => {
      const series = { setData: resolve, update: () => {} };
      followBars(client, series, { symbol: "BTC-USD", intervalS: 1, history: `http://127.0.0.1:${port}` });
    });
    expect(shown.length).toBeGreaterThan(0);
  });
});
