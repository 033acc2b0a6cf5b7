/** The adapter for Perspective, with its WebAssembly engine in Node. */

import { expect, test } from "vitest";
import { feedTable, options, schema } from "../src/adapters/perspective";
import { definition, FakeServer, quote } from "./fake";

const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

test("the table has a row per symbol with its newest values", async () => {
  // The types are those for browsers; in Node the package itself has the engine.
  const { default: perspective }: any = await import("@perspective-dev/client");
  const table = await perspective.table({ ...schema }, { ...options });
  const server = new FakeServer();
  const client = server.client();
  feedTable(client, table, { symbols: "*" });
  await pause();
  server.last.welcome();
  server.last.grant([definition(1, "BTC-USD"), definition(2, "ETH-USD"), quote(1, 1, 100, 102), quote(2, 1, 50, 51)]);
  server.last.packet([quote(1, 2, 111, 112)]);
  const view = await table.view({ sort: [["symbol", "asc"]] });
  for (;;) {
    const columns: any = await view.to_columns();
    if (columns.bid?.[0] === 1.11) {
      expect(columns).toMatchObject({ symbol: ["BTC-USD", "ETH-USD"], bid: [1.11, 0.5], state: ["LIVE", "LIVE"] });
      break;
    }
    await pause();
  }
  client.close();
  await view.delete();
  await table.delete();
});

test("present values are in the table at once", async () => {
  const server = new FakeServer();
  const client = server.client();
  client.subscribe({ symbols: "*" });
  await pause();
  server.last.welcome();
  server.last.grant([definition(1, "BTC-USD"), definition(2, "ETH-USD"), quote(1, 1, 100, 102)]);
  while (client.state("ETH-USD") !== "LIVE") await pause();
  const updates: any[] = [];
  const table = { update: (columns: unknown) => void updates.push(columns), remove: () => {} };
  feedTable(client, table, { symbols: "BTC-*" });
  await pause();
  expect(updates[0]).toMatchObject({ symbol: ["BTC-USD"], bid: [1] });
  client.close();
});
