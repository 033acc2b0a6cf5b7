/** The bars of a chart as CSV, and the chart as a picture with a line that says what it shows. */

import type { Bar } from "./candles.ts";
import { csvText } from "./csv.ts";
import { floatText } from "./format.ts";

const NAMES = ["time", "unix_s", "open", "high", "low", "close", "volume", "bid", "ask"];

/** Prices have the instrument's decimals, and no more digits than a float has. Missing values are empty. */
export function barsCsv(bars: readonly Bar[], decimals: number, sizeDecimals: number): string {
  const px = (value: number): string => (Number.isNaN(value) ? "" : floatText(value, decimals));
  const rows = bars.map((bar) => {
    const prices = [bar.open, bar.high, bar.low, bar.close].map(px);
    const times = [new Date(bar.time * 1000).toISOString(), String(bar.time)];
    return [...times, ...prices, floatText(bar.volume, sizeDecimals), px(bar.bid), px(bar.ask)];
  });
  return csvText(NAMES, rows);
}

const LINE_HEIGHT = 28;

/** The drawn chart below a line of text, in the colours of the page. */
export function titled(chart: HTMLCanvasElement, title: string, ground: string, tone: string): HTMLCanvasElement {
  const ratio = window.devicePixelRatio || 1;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [chart.width, chart.height + Math.round(LINE_HEIGHT * ratio)];
  const context = canvas.getContext("2d");
  if (context === null) return chart;
  context.fillStyle = ground;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = tone;
  context.textBaseline = "middle";
  context.font = `600 ${Math.round(13 * ratio)}px system-ui, sans-serif`;
  const margin = Math.round(12 * ratio);
  context.fillText(title, margin, Math.round((LINE_HEIGHT / 2) * ratio), canvas.width - 2 * margin);
  context.drawImage(chart, 0, canvas.height - chart.height);
  return canvas;
}
