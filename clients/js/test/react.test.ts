// @vitest-environment jsdom
/** The hooks for React, in a document of jsdom and against a fake server. */

import { act, createElement, StrictMode, type ReactNode } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { useConnection, useInstrumentState, useQuote, useTrade } from "../src/adapters/react";
import type { Client } from "../src/types";
import { definition, FakeServer, quote, settle, trade } from "./fake";

let server: FakeServer;
let client: Client;
let root: Root;
let element: HTMLElement;
beforeEach(() => {
  vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "Date"] });
  server = new FakeServer();
  client = server.client({ pull: "immediate" });
  element = document.createElement("div");
  root = createRoot(element);
});
afterEach(async () => {
  await act(async () => client.close());
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const BTC = definition(1, "BTC-USD");
const ETH = definition(2, "ETH-USD");

function Line({ symbol }: { symbol: string }): ReactNode {
  const { phase } = useConnection(client);
  const [bid, price] = [useQuote(client, symbol)?.bid ?? "–", useTrade(client, symbol)?.price ?? "–"];
  return `${symbol} ${bid} ${price} ${useInstrumentState(client, symbol)} ${phase}`;
}

const render = (symbol: string): Promise<void> =>
  act(async () => root.render(createElement(StrictMode, null, createElement(Line, { symbol }))));
const settled = (run: () => void): Promise<void> =>
  act(async () => {
    run();
    await settle();
  });

test("a component shows the newest values, the state and the connection", async () => {
  await render("BTC-USD");
  expect(element.textContent).toBe("BTC-USD – – STALE connecting");
  await settled(() => server.last.welcome());
  // Both mounts of the strict mode share one request for each channel.
  expect(server.last.requests.filter(({ op }) => op === "subscribe")).toMatchObject([
    { symbols: ["BTC-USD"], channels: ["quote", "trade"] },
  ]);
  await settled(() => server.last.grant([BTC, quote(1, 1, 100, 102), trade(1, 1, 101)]));
  expect(element.textContent).toBe("BTC-USD 1.00 1.01 LIVE live");
  await settled(() => server.last.packet([quote(1, 2, 107, 109)]));
  expect(element.textContent).toBe("BTC-USD 1.07 1.01 LIVE live");
  await settled(() => server.last.closeWith(1006));
  expect(element.textContent).toMatch(/^BTC-USD 1.07 1.01 STALE (waiting|connecting)$/);
});

test("another symbol shows no value of the former one, and the subscription ends with the component", async () => {
  await render("BTC-USD");
  await settled(() => server.last.welcome());
  await settled(() => server.last.grant([BTC, quote(1, 1, 100, 102)]));
  await render("ETH-USD");
  expect(element.textContent).toBe("ETH-USD – – STALE live");
  await settled(() => server.last.grant([ETH, quote(2, 1, 50, 51)]));
  expect(element.textContent).toBe("ETH-USD 0.50 – LIVE live");
  server.last.takeRequests();
  await settled(() => root.unmount());
  expect(server.last.takeRequests()).toMatchObject([{ op: "unsubscribe", symbols: ["ETH-USD"] }]);
});

test("a client that has ended has no current values, which no event of an instrument says", async () => {
  const State = (): ReactNode => useInstrumentState(client, "BTC-USD");
  await act(async () => root.render(createElement(State)));
  client.subscribe({ symbols: "BTC-USD" });
  await settled(() => server.last.welcome());
  await settled(() => server.last.grant([BTC]));
  expect(element.textContent).toBe("LIVE");
  await settled(() => client.close());
  expect(element.textContent).toBe("STALE");
});
