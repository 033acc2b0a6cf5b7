// @vitest-environment jsdom
/** The adapters, with the real libraries where these run without a screen. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { AllCommunityModule, createGrid, ModuleRegistry, type GridApi } from "ag-grid-community";
import type { ISeriesApi, UTCTimestamp } from "lightweight-charts";
import type uPlot from "uplot";
import { feedGrid, getRowId, type GridRow } from "../src/adapters/ag-grid";
import { barsOf, followBars, type Bar, type BarSeries } from "../src/adapters/lightweight-charts";
import { feedTable, type TableColumns } from "../src/adapters/perspective";
import { followSeries, SlidingColumns, type Chart } from "../src/adapters/uplot";
import { definition, FakeServer, gap, quote, settle, trade } from "./fake";

let server: FakeServer;
beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "Date"] });
  vi.setSystemTime(1_763_700_000_000);
  server = new FakeServer();
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const BTC = definition(1, "BTC-USD");
const ETH = definition(2, "ETH-USD");

// The libraries' types fit those of the adapters: tsc checks these lines.
export const seriesFit = (series: ISeriesApi<"Candlestick">): BarSeries<UTCTimestamp> => series;
export const chartFits = (chart: uPlot): Chart => chart;

describe("lightweight-charts", () => {
  const MINUTE = 1_763_700_000;
  const history = {
    ...{ symbol: "BTC-USD", interval_s: 60, since: 0, time: [MINUTE - 120, MINUTE - 60, MINUTE] },
    ...{ open: ["1.00", null, "2.00"], high: ["1.50", null, "2.50"], low: ["0.50", null, "1.90"] },
    ...{ close: ["1.20", null, "2.10"] },
  };

  function series(): BarSeries & { bars: Bar[]; seeds: number } {
    return {
      bars: [] as Bar[],
      seeds: 0,
      setData(bars) {
        this.seeds++;
        this.bars = bars;
      },
      /** Refuses a bar before the last one, as the library does. */
      update(bar) {
        const last = this.bars.at(-1);
        if (last !== undefined && bar.time < last.time) throw new Error("Cannot update oldest data");
        if (last?.time === bar.time) this.bars.pop();
        this.bars.push({ ...bar });
      },
    };
  }

  test("trades continue the history in bars of their time", async () => {
    vi.stubGlobal("fetch", async () => new Response(JSON.stringify(history)));
    const client = server.client({ pull: "immediate" });
    const chart = series();
    const end = followBars(client, chart, { symbol: "BTC-USD", history: "http://fake" });
    await settle();
    server.last.welcome();
    server.last.grant([BTC]);
    server.last.packet([trade(1, 1, 260), trade(1, 2, 205)]);
    await settle();
    expect(chart.bars).toEqual([
      { time: MINUTE - 120, open: 1, high: 1.5, low: 0.5, close: 1.2 },
      { time: MINUTE, open: 2, high: 2.6, low: 1.9, close: 2.05 },
    ]);
    vi.setSystemTime((MINUTE + 61) * 1000);
    server.last.packet([trade(1, 3, 300)]);
    await settle();
    expect(chart.bars.at(-1)).toEqual({ time: MINUTE + 60, open: 3, high: 3, low: 3, close: 3 });
    vi.setSystemTime((MINUTE + 30) * 1000);
    server.last.packet([trade(1, 4, 1)]);
    await settle();
    expect(chart.bars.at(-1)!.close).toBe(3);
    end();
    await settle();
    expect(server.last.takeRequests()).toMatchObject([{ op: "unsubscribe", channels: ["trade"] }]);
    client.close();
  });

  test("a gap reloads the history", async () => {
    vi.stubGlobal("fetch", async () => new Response(JSON.stringify(history)));
    const client = server.client({ pull: "immediate" });
    const chart = series();
    followBars(client, chart, { symbol: "BTC-USD", history: "http://fake" });
    await settle();
    server.last.welcome();
    server.last.grant([BTC, trade(1, 1, 200)]);
    await settle();
    server.last.packet([gap(1, 2, 2, 9), trade(1, 10, 210)]);
    await settle();
    expect(chart.seeds).toBe(2);
    client.close();
  });

  test("without history the chart begins with the next trade", async () => {
    vi.stubGlobal("fetch", async () => new Response(null, { status: 404 }));
    const client = server.client({ pull: "immediate" });
    const chart = series();
    followBars(client, chart, { symbol: "BTC-USD", intervalS: 1, history: "http://fake" });
    await settle();
    server.last.welcome();
    server.last.grant([BTC, trade(1, 1, 200)]);
    await settle();
    expect(chart.bars).toEqual([{ time: MINUTE, open: 2, high: 2, low: 2, close: 2 }]);
    client.close();
  });

  test("bars without a trade are left out", () => {
    expect(barsOf(history)).toHaveLength(2);
  });
});

describe("uPlot", () => {
  test("columns slide and have the same length", () => {
    const columns = new SlidingColumns(2, 4);
    for (let value = 0; value < 23; value++) columns.push([value, -value]);
    expect(columns.views().map((view) => [...view])).toEqual([
      [19, 20, 21, 22],
      [-19, -20, -21, -22],
    ]);
  });

  test("each frame with a change of the instrument adds a point", async () => {
    const client = server.client({ pull: "immediate" });
    const drawn: number[][][] = [];
    followSeries(
      client,
      { setData: (data: Float64Array[]) => drawn.push(data.map((one) => [...one])) },
      { symbol: "BTC-USD" },
    );
    await settle();
    server.last.welcome();
    server.last.grant([BTC, ETH, quote(1, 1, 100, 102)]);
    await settle();
    server.last.packet([quote(1, 2, 101, 103)]);
    await settle();
    expect(drawn.at(-1)!.slice(1)).toEqual([
      [1, 1.01],
      [1.02, 1.03],
    ]);
    client.close();
  });
});

describe("AG Grid", () => {
  test("the grid has a row per instrument with its newest values", async () => {
    ModuleRegistry.registerModules([AllCommunityModule]);
    const api: GridApi<GridRow> = createGrid<GridRow>(document.createElement("div"), {
      ...{ columnDefs: [{ field: "symbol" }, { field: "bid" }], rowData: [], getRowId },
    });
    const client = server.client({ pull: "immediate" });
    const end = feedGrid(client, api, { symbols: "*" });
    await settle();
    server.last.welcome();
    server.last.grant([BTC, ETH, quote(1, 1, 100, 102), quote(2, 1, 50, 51)]);
    await settle();
    api.flushAsyncTransactions();
    expect(api.getDisplayedRowCount()).toBe(2);
    server.last.packet([quote(1, 2, 111, 112)]);
    await settle();
    api.flushAsyncTransactions();
    expect(api.getDisplayedRowCount()).toBe(2);
    expect(api.getRowNode("BTC-USD")!.data).toMatchObject({ bid: 1.11, state: "LIVE", text: { bid: "1.11" } });
    expect(api.getRowNode("ETH-USD")!.data).toMatchObject({ bid: 0.5 });
    end();
    client.close();
    api.destroy();
  });
});

describe("Perspective", () => {
  test("a slow table gets one update at a time with the newest values", async () => {
    const updates: TableColumns[] = [];
    let finish = (): void => {};
    const table = {
      remove: () => {},
      update(columns: TableColumns): Promise<void> {
        updates.push(columns);
        return new Promise((resolve) => (finish = resolve));
      },
    };
    const client = server.client({ pull: "immediate" });
    feedTable(client, table, { symbols: ["BTC-USD", "ETH-USD"] });
    await settle();
    server.last.welcome();
    server.last.grant([BTC, ETH, quote(1, 1, 100, 102)]);
    await settle();
    for (let sequence = 2; sequence <= 9; sequence++) {
      server.last.packet([quote(1, sequence, 100 + sequence, 200)]);
      await settle();
    }
    expect(updates).toHaveLength(1);
    finish();
    await settle();
    expect(updates).toHaveLength(2);
    expect(updates[1]).toMatchObject({ symbol: ["BTC-USD"], bid: [1.09] });
    client.close();
  });
});
