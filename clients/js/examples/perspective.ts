import perspective from "@perspective-dev/client";
import clientWasm from "@perspective-dev/client/dist/wasm/perspective-js.wasm";
import serverWasm from "@perspective-dev/server/dist/wasm/perspective-server.wasm";
import { feedTable, options, schema } from "tickcast/adapters/perspective";
import { start, view } from "./common";

// Perspective computes in a worker of its own; the client's worker feeds it.
await Promise.all([perspective.init_server(fetch(serverWasm)), perspective.init_client(fetch(clientWasm))]);
const engine = await perspective.worker();
const table = await engine.table({ ...schema }, { ...options });
feedTable(start(), table, { symbols: "*" });

const widest = await table.view({
  columns: ["symbol", "bid", "ask", "spread"],
  expressions: { spread: '("ask" - "bid") / "bid"' },
  sort: [["spread", "desc"]],
});
const body = view.appendChild(document.createElement("table")).createTBody();
await widest.on_update(async () => {
  const rows = await widest.to_json({ end_row: 10 });
  body.replaceChildren(
    ...rows.map((values: Record<string, unknown>) => {
      const line = document.createElement("tr");
      for (const name of ["symbol", "bid", "ask", "spread"]) line.insertCell().textContent = `${values[name]}`;
      return line;
    }),
  );
});
