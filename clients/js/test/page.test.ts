// @vitest-environment jsdom
/** In a page: frames, hidden pages, and where the stream side runs. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { connect } from "../src/index";
import type { Command } from "../src/messages";
import { definition, FakeServer, quote, settle } from "./fake";

let server: FakeServer;
let visibility: DocumentVisibilityState;
beforeEach(() => {
  vi.useFakeTimers();
  server = new FakeServer();
  visibility = "visible";
  vi.spyOn(document, "visibilityState", "get").mockImplementation(() => visibility);
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

const BTC = definition(1, "BTC-USD");

async function show(state: DocumentVisibilityState): Promise<void> {
  visibility = state;
  document.dispatchEvent(new Event("visibilitychange"));
  await settle();
}

test("changes are delivered once per animation frame", async () => {
  const client = server.client();
  let frames = 0;
  client.onFrame(() => frames++);
  client.subscribe({ symbols: "BTC-USD" });
  await settle();
  server.last.welcome();
  server.last.grant([BTC]);
  await settle(50);
  frames = 0;
  for (let sequence = 1; sequence <= 100; sequence++) server.last.packet([quote(1, sequence, sequence, 200)]);
  expect(frames).toBe(0);
  await settle(17);
  expect([frames, client.quotes.bidPx[0]]).toEqual([1, 100]);
  await settle(200);
  expect(frames).toBe(1);
  client.close();
});

test("a hidden page uses the longer interval and pulls by a timer", async () => {
  const client = server.client({ conflateMs: 100 });
  client.subscribe({ symbols: "BTC-USD" });
  await settle();
  server.last.welcome();
  server.last.grant([BTC]);
  await settle(20);
  await show("hidden");
  expect(client.hidden).toBe(true);
  expect(server.last.grant()).toMatchObject([{ op: "subscribe", conflate_ms: 1000 }]);
  server.last.packet([quote(1, 1, 77, 78)]);
  await settle(900);
  expect(client.quotes.bidPx[0]).toBeNaN();
  await settle(200);
  expect(client.quotes.bidPx[0]).toBe(77);
  await show("visible");
  expect(server.last.grant()).toMatchObject([{ op: "subscribe", conflate_ms: 100 }]);
  client.close();
});

test("hiddenConflateMs null leaves the interval of a hidden page", async () => {
  const client = server.client({ hiddenConflateMs: null });
  client.subscribe({ symbols: "BTC-USD" });
  await settle();
  server.last.welcome();
  server.last.grant([BTC]);
  await show("hidden");
  expect(server.last.takeRequests()).toEqual([]);
  client.close();
});

test("an online event reconnects at once", async () => {
  vi.spyOn(Math, "random").mockReturnValue(1);
  vi.stubGlobal("fetch", () => Promise.reject(new TypeError("offline")));
  const client = server.client();
  await settle();
  for (const _ of [1, 2, 3]) {
    server.last.closeWith(1006);
    await settle(1000);
  }
  server.last.closeWith(1006);
  await settle(10);
  const before = server.sockets.length;
  window.dispatchEvent(new Event("online"));
  await settle();
  expect(server.sockets.length).toBe(before + 1);
  client.close();
});

/** Replaces Worker by one that starts, or fails to. */
function workers(outcome: (url: string) => "ready" | "error" | "throws" | "silent"): {
  urls: string[];
  posted: Command[][];
} {
  const seen = { urls: [] as string[], posted: [] as Command[][] };
  class FakeWorker {
    onmessage: ((event: object) => void) | null = null;
    onerror: ((event: object) => void) | null = null;
    constructor(url: string | URL) {
      seen.urls.push(`${url}`);
      const how = outcome(`${url}`);
      if (how === "throws") throw new DOMException("another origin", "SecurityError");
      queueMicrotask(() => {
        if (how === "ready") this.onmessage?.({ data: { t: "ready" } });
        if (how === "error") this.onerror?.({ preventDefault: () => {} });
      });
    }
    postMessage(commands: Command[]): void {
      seen.posted.push(commands);
    }
    terminate(): void {}
  }
  vi.stubGlobal("Worker", FakeWorker);
  URL.createObjectURL = () => "blob:worker";
  URL.revokeObjectURL = () => {};
  return seen;
}

test("a worker gets the commands posted before it was ready", async () => {
  const seen = workers(() => "ready");
  const client = connect("ws://fake");
  client.subscribe({ symbols: "BTC-USD" });
  expect(client.worker).toBe("starting");
  await settle();
  expect(client.worker).toBe("module");
  expect(seen.posted.flat().map(({ t }) => t)).toEqual(["open", "sub"]);
  client.close();
});

test.each(["throws", "error"] as const)("where the module worker %s, a blob worker is tried", async (how) => {
  const seen = workers((url) => (url.startsWith("blob:") ? "ready" : how));
  const client = connect("ws://fake");
  await settle();
  expect([client.worker, seen.urls.length]).toEqual(["blob", 2]);
  client.close();
});

test.each(["throws", "error", "silent"] as const)(
  "where all workers %s, the client runs on the page without console output",
  async (how) => {
    const consoles = (["log", "warn", "error"] as const).map((name) => vi.spyOn(console, name));
    workers(() => how);
    vi.stubGlobal("WebSocket", server.WebSocket);
    const client = connect("ws://fake");
    client.subscribe({ symbols: "BTC-USD" });
    await settle(how === "silent" ? 10_100 : 1);
    expect(client.worker).toBe("none");
    server.last.welcome();
    expect(server.last.grant([BTC])).toMatchObject([{ symbols: ["BTC-USD"] }]);
    await settle(50);
    expect(client.state("BTC-USD")).toBe("LIVE");
    for (const spy of consoles) expect(spy).not.toHaveBeenCalled();
    client.close();
  },
);

test("importing has no effects", async () => {
  vi.stubGlobal("document", undefined);
  vi.stubGlobal("location", undefined);
  vi.resetModules();
  await expect(import("../src/index")).resolves.toHaveProperty("connect");
});
