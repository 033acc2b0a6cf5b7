// @vitest-environment jsdom
/** The adapters, with the real libraries where these run without a screen. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { AllCommunityModule, createGrid, ModuleRegistry, type GridApi } from "ag-grid-community";
import type { ISeriesApi, UTCTimestamp } from "lightweight-charts";
import type uPlot from "uplot";
import { feedGrid, getRowId, type GridRow } from "../src/adapters/ag-grid";
import * as charts from "../src/adapters/lightweight-charts";
import { barsOf, followBars, type Bar, type BarSeries } from "../src/adapters/lightweight-charts";
import { feedTable, type TableColumns } from "../src/adapters/perspective";
import { followSeries, SlidingColumns, type Chart } from "../src/adapters/uplot";
import type { IChartApi, ISeriesMarkersPluginApi, Time } from "lightweight-charts";
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
export const volumeFits = (series: ISeriesApi<"Histogram">): charts.VolumeSeries<UTCTimestamp> => series;
export const marksFit = (marks: ISeriesMarkersPluginApi<Time>): charts.SeriesMarks<UTCTimestamp> => marks;
export const barChartFits = (chart: IChartApi): charts.BarChart => chart;
export const chartFits = (chart: uPlot): Chart => chart;

describe("lightweight-charts", () => {
  const MINUTE = 1_763_700_000;
  const history = {
    ...{ symbol: "BTC-USD", interval_s: 60, since: 0, time: [MINUTE - 120, MINUTE - 60, MINUTE] },
    ...{ open: ["1.00", null, "2.00"], high: ["1.50", null, "2.50"], low: ["0.50", null, "1.90"] },
    ...{ close: ["1.20", null, "2.10"], volume: ["5", "0", "1.5"] },
  };
  const after = { ...history, since: MINUTE + 600, time: [] as number[] };
  for (const name of ["open", "high", "low", "close", "volume"] as const) after[name] = [];

  /** The server's answers by URL, and the URLs that were asked for. */
  function bars(answerOf: (url: URL) => object | number): URL[] {
    const asked: URL[] = [];
    vi.stubGlobal("fetch", async (url: URL) => {
      asked.push(url);
      const answer = answerOf(url);
      return typeof answer === "number" ? new Response(null, { status: answer }) : Response.json(answer);
    });
    return asked;
  }

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

  test("trades that this client has dropped reload the history", async () => {
    const asked = bars(() => history);
    const frames: ((now: number) => void)[] = [];
    vi.stubGlobal("requestAnimationFrame", (callback: (now: number) => void) => frames.push(callback));
    vi.stubGlobal("cancelAnimationFrame", () => {});
    const client = server.client({ tradeBacklog: 8 });
    followBars(client, series(), { symbol: "BTC-USD", history: "http://fake" });
    await settle();
    server.last.welcome();
    server.last.grant([BTC]);
    await settle();
    expect(asked).toHaveLength(1);
    server.last.packet(Array.from({ length: 100 }, (_, at) => trade(1, at + 1, 200 + at)));
    await settle();
    for (const frame of frames.splice(0)) frame(performance.now() + 60_000);
    await settle();
    expect(client.stats.tradesDropped).toBeGreaterThan(0);
    expect(asked).toHaveLength(2);
    client.close();
  });

  test("the price format is that of the instrument, also of one with another tick later", async () => {
    bars(() => history);
    const client = server.client({ pull: "immediate" });
    const formats: unknown[] = [];
    const chart = { ...series(), applyOptions: (options: any) => formats.push(options.priceFormat) };
    followBars(client, chart, { symbol: "EURUSD", history: "http://fake" });
    await settle();
    server.last.welcome();
    server.last.grant([definition(1, "EURUSD", -5)]);
    await settle();
    server.last.packet([definition(1, "EURUSD", 0)]);
    await settle();
    expect(formats).toEqual([
      { type: "price", precision: 5, minMove: 0.00001 },
      { type: "price", precision: 0, minMove: 1 },
    ]);
    expect([charts.decimalsOf(-8, 1_000_000), charts.decimalsOf(-18, NaN), charts.decimalsOf(2, 5)]).toEqual([2, 12, 0]);
    client.close();
  });

  test("a restart keeps the bars from before, joins the bar of the restart, and marks where the server was away", async () => {
    let answer: object | number = history;
    const asked = bars(() => answer);
    const client = server.client({ pull: "immediate" });
    const chart = series();
    const marked: any[] = [];
    const volumes: any[] = [];
    const volume = { setData: (list: any[]) => volumes.push(...list.splice(0)), update: () => {} };
    const marks = { setMarkers: (list: any[]) => marked.splice(0, Infinity, ...list) };
    followBars(client, chart, { symbol: "BTC-USD", history: "http://fake", marks, volume });
    await settle();
    server.last.welcome();
    server.last.grant([BTC, trade(1, 1, 260)]);
    await settle();
    expect([chart.bars.length, marked]).toEqual([2, []]);
    // The instrument is not there at first.
    answer = 404;
    server.last.closeWith(1006);
    await settle(1000);
    server.last.welcome(8);
    server.last.grant([], { epoch: 8 });
    await settle();
    expect(chart.bars).toHaveLength(2);
    const joint = { time: [MINUTE, MINUTE + 60], open: ["2.20", "2.40"], high: ["9.00", "2.40"], low: ["2.20", "2.40"] };
    answer = { ...history, ...joint, since: MINUTE + 30, close: ["2.30", "2.40"], volume: ["2", "1"] };
    vi.setSystemTime((MINUTE + 70) * 1000);
    server.last.packet([definition(3, "BTC-USD")], { epoch: 8 });
    await settle();
    expect(asked.length).toBeGreaterThan(2);
    expect(chart.bars).toEqual([
      { time: MINUTE - 120, open: 1, high: 1.5, low: 0.5, close: 1.2 },
      { time: MINUTE, open: 2, high: 9, low: 1.9, close: 2.3 },
      { time: MINUTE + 60, open: 2.4, high: 2.4, low: 2.4, close: 2.4 },
    ]);
    // Those of the trades before the restart, and those after it.
    const volumeAt = (): number => volumes.filter(({ time }) => time === MINUTE).at(-1).value;
    expect(volumeAt()).toBeCloseTo(1.5 + 2 + 0.000_000_03, 10);
    // Later answers have that bar as the new server knows it: it stays as it is here.
    const before = chart.bars;
    server.last.packet([gap(3, 2, 1, 5), trade(3, 6, 240)], { epoch: 8 });
    await settle();
    expect(chart.bars.slice(0, 2)).toEqual(before.slice(0, 2));
    expect(volumeAt()).toBeCloseTo(1.5 + 2 + 0.000_000_03, 10);
    expect(marked).toMatchObject([{ time: MINUTE, text: expect.stringMatching(/^server away .*20.* to .*20/) }]);
    client.close();
  });

  test("a server that has no bar yet after its restart is marked at the first one", async () => {
    let answer: object = history;
    bars(() => answer);
    const client = server.client({ pull: "immediate" });
    const chart = series();
    const marked: any[] = [];
    const marks = { setMarkers: (list: any[]) => marked.splice(0, Infinity, ...list) };
    followBars(client, chart, { symbol: "BTC-USD", history: "http://fake", marks });
    await settle();
    server.last.welcome();
    server.last.grant([BTC, trade(1, 1, 260)]);
    await settle();
    answer = after;
    server.last.closeWith(1006);
    await settle(1000);
    server.last.welcome(8);
    server.last.grant([BTC], { epoch: 8 });
    await settle();
    expect([chart.bars.length, marked]).toEqual([2, []]);
    vi.setSystemTime((MINUTE + 661) * 1000);
    server.last.packet([trade(1, 1, 300)], { epoch: 8 });
    await settle();
    expect(marked.map(({ time }) => time)).toEqual([MINUTE + 660]);
    client.close();
  });

  test("a request that fails is made again, later each time", async () => {
    let answer: object | number = history;
    const asked = bars(() => answer);
    const client = server.client({ pull: "immediate" });
    const chart = series();
    followBars(client, chart, { symbol: "BTC-USD", history: "http://fake" });
    await settle();
    server.last.welcome();
    server.last.grant([BTC, trade(1, 1, 200)]);
    await settle();
    answer = 503;
    server.last.packet([gap(1, 2, 2, 9), trade(1, 10, 210)]);
    await settle();
    const [first, seeds] = [asked.length, chart.seeds];
    await settle(2000);
    expect(asked).toHaveLength(first + 1);
    await settle(2000);
    expect(asked).toHaveLength(first + 1);
    answer = history;
    await settle(2000);
    expect([asked.length, chart.seeds]).toEqual([first + 2, seeds + 1]);
    client.close();
  });

  test("the volume of the bar in which the history ends is corrected once that bar is over", async () => {
    const asked = bars(() => history);
    const client = server.client({ pull: "immediate" });
    const shown: { time: number; value: number }[] = [];
    const setData = (list: typeof shown): void => void shown.push(...list);
    const volume = { last: NaN, setData, update: ({ value }: { value: number }) => (volume.last = value) };
    followBars(client, series(), { symbol: "BTC-USD", history: "http://fake", volume });
    await settle();
    server.last.welcome();
    server.last.grant([BTC, trade(1, 1, 200, 0xa0, 100_000_000)]);
    await settle();
    expect(volume.last).toBe(1.5);
    server.last.packet([trade(1, 2, 200, 0x80, 100_000_000)]);
    await settle();
    expect([volume.last, asked.length]).toEqual([2.5, 1]);
    vi.setSystemTime((MINUTE + 61) * 1000);
    server.last.packet([trade(1, 3, 300)]);
    await settle(1000);
    // Only what is over, and once: the bar that is under way has all of its trades.
    expect(asked.slice(1).map(({ search }) => search)).toEqual([`?interval_s=60&limit=1&to=${MINUTE + 60}`]);
    expect(shown.filter(({ time }) => time === MINUTE).at(-1)!.value).toBe(1.5);
    vi.setSystemTime((MINUTE + 121) * 1000);
    server.last.packet([trade(1, 4, 300)]);
    await settle(5000);
    expect(asked).toHaveLength(2);
    client.close();
  });

  test("older bars are loaded while the left end is in view, until there are none", async () => {
    const older = { ...history, time: [MINUTE - 300, MINUTE - 240, MINUTE - 180] };
    const asked = bars((url) => {
      const to = url.searchParams.get("to");
      return to === null ? history : to === `${MINUTE - 120}` ? older : after;
    });
    let scroll: (range: { from: number; to: number } | null) => void = () => {};
    const scale = {
      subscribeVisibleLogicalRangeChange: (changed: typeof scroll) => void (scroll = changed),
      unsubscribeVisibleLogicalRangeChange: (changed: typeof scroll) => changed === scroll && (scroll = () => {}),
    };
    const client = server.client({ pull: "immediate" });
    const chart = series();
    const options = { symbol: "BTC-USD", history: "http://fake", chart: { applyOptions: () => {}, timeScale: () => scale } };
    const end = followBars(client, chart, options as charts.BarOptions);
    await settle();
    scroll({ from: 100, to: 200 });
    await settle();
    expect(asked).toHaveLength(1);
    for (const _ of [1, 2, 3, 4]) {
      scroll({ from: 3, to: 200 });
      await settle();
    }
    expect(asked.map((url) => url.searchParams.get("to"))).toEqual([null, `${MINUTE - 120}`, `${MINUTE - 300}`]);
    expect(chart.bars.map(({ time }) => time - MINUTE)).toEqual([-300, -180, -120, 0]);
    end();
    scroll({ from: 0, to: 9 });
    await settle();
    expect(asked).toHaveLength(3);
    client.close();
  });

  test("a time zone is that of the chart's labels", async () => {
    bars(() => history);
    const client = server.client({ pull: "immediate" });
    const given: any[] = [];
    const chart = {
      applyOptions: (options: any) => given.push(options),
      timeScale: () => ({ subscribeVisibleLogicalRangeChange() {}, unsubscribeVisibleLogicalRangeChange() {} }),
    };
    followBars(client, series(), { symbol: "BTC-USD", history: "http://fake", chart, timeZone: "Asia/Tokyo" });
    const [{ localization, timeScale }] = given;
    const noon = Date.UTC(2026, 6, 1, 12, 0, 5) / 1000;
    expect(localization.timeFormatter(noon)).toMatch(/21:00:05/);
    expect([3, 4, 0].map((kind) => timeScale.tickMarkFormatter(noon, kind, "en-GB"))).toEqual(["21:00", "21:00:05", "2026"]);
    expect(() => followBars(client, series(), { symbol: "A", timeZone: "Mars/Olympus" })).toThrow(/Mars.*Europe\/Zurich/);
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
