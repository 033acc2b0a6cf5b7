/**
 * Time and sales: the newest trades of the chosen instrument, newest first. The list pauses while the mouse is over it,
 * and shows the number of pending trades.
 */

import { type TradeList, decimal } from "tickcast";
import { csvText, fileName } from "./csv.ts";
import { Columns, field, make, mark, part, write } from "./dom.ts";
import { saveText } from "./files.ts";
import { countText } from "./format.ts";
import type { Market } from "./market.ts";
import { type RecentTrade, type RecentTrades, sideOf } from "./recent-trades.ts";
import { type TradesAnswer, afterHole, joined, tradesOf } from "./trade-history.ts";
import { UTC, type Zone } from "./zones.ts";

const LINE_HEIGHT = 19;
/** Trades to keep; no pane shows more. */
const TRADES_MAX = 200;
/** Requests for history where its answer does not reach the live trades. */
const REQUESTS_MAX = 3;
const CSV_NAMES = ["time", "unix_ms", "symbol", "price", "size", "side", "sequence"];

/** One line in the document. */
class Line {
  readonly element = make("li");
  readonly #time = make("time");
  readonly #px = make("b");
  readonly #sz = make("span");
  #trade: RecentTrade | undefined;

  constructor() {
    this.element.append(this.#time, this.#px, this.#sz);
  }

  show(market: Market, row: number, trade: RecentTrade, zone: Zone, columns: Columns): void {
    this.#trade = trade;
    this.writeTime(zone);
    this.rewrite(market, row, columns);
    mark(this.element, "side", trade.side);
    this.element.title = trade.side === "B" ? "buyer took" : trade.side === "S" ? "seller took" : "";
  }

  writeTime(zone: Zone): void {
    if (this.#trade === undefined) return;
    write(this.#time, zone.clock(this.#trade.at, true));
    // The day is not in the text: an instrument may have traded last days ago.
    this.#time.title = `${zone.day(this.#trade.at, true)} ${zone.label(this.#trade.at)}`;
  }

  /** Writes the numbers with the present decimals. */
  rewrite(market: Market, row: number, columns: Columns): void {
    if (this.#trade === undefined) return;
    const [px, sz] = [market.tradePriceText(row, this.#trade), market.tradeSizeText(row, this.#trade)];
    write(this.#px, px);
    write(this.#sz, sz);
    columns.note("price", px);
    columns.note("size", sz);
  }
}

export class Trades {
  readonly #root: HTMLElement;
  readonly #market: Market;
  readonly #recent: RecentTrades;
  readonly #list: HTMLElement;
  readonly #columns: Columns;
  /** Oldest first. */
  #trades: RecentTrade[] = [];
  /** How many of the newest trades are not in the document yet. */
  #pending = 0;
  /** In the document, top to bottom. */
  #lines: Line[] = [];
  #linesMax = 0;
  /** {@link Market.digits} of the lines. */
  #digits = NaN;
  #row = -1;
  #paused = false;
  #zone = UTC;
  #loading: AbortController | null = null;

  constructor(root: HTMLElement, market: Market, recent: RecentTrades) {
    this.#root = root;
    this.#market = market;
    this.#recent = recent;
    this.#list = part(root, ".trade-list");
    this.#columns = new Columns(root);
    part(root, "[data-action=trades-csv]").addEventListener("click", () => this.#save());
    this.#list.addEventListener("pointerenter", (event) => this.#pause(event.pointerType === "mouse"));
    this.#list.addEventListener("pointerleave", () => this.#pause(false));
    new ResizeObserver(([entry]) => {
      this.#resized(entry?.contentRect);
      // Trades that came while there was no space are pending.
      this.draw();
    }).observe(this.#list);
  }

  /** Shows another instrument, beginning with its recent trades. */
  choose(row: number): void {
    this.#row = row;
    this.#columns.reset();
    this.#setTrades(row < 0 ? [] : afterHole(this.#recent.of(row, TRADES_MAX)));
    this.reload();
  }

  /** Requests the trades that the list lacks: when it begins, and after a gap in the live ones. */
  reload(): void {
    this.#loading?.abort();
    this.#loading = null;
    if (this.#row >= 0) void this.#load(REQUESTS_MAX);
  }

  /** The times are shown in another zone. */
  set zone(zone: Zone) {
    this.#zone = zone;
    for (const line of this.#lines) line.writeTime(zone);
    this.#showZone();
  }

  /** Adds the trades of the chosen instrument of a frame; {@link Trades.draw} shows them. */
  take(trades: TradeList): void {
    const { pxExp, szExp } = this.#market.client.instruments;
    for (let at = 0; at < trades.length; at++) {
      if (trades.row[at] !== this.#row) continue;
      this.#trades.push({
        at: trades.eventMs[at] || trades.recvMs[at] || 0,
        px: trades.px[at] ?? NaN,
        sz: trades.sz[at] ?? NaN,
        pxRest: trades.pxRest[at] ?? 0,
        szRest: trades.szRest[at] ?? 0,
        pxExp: pxExp[this.#row] ?? 0,
        szExp: szExp[this.#row] ?? 0,
        side: sideOf(trades.side[at]),
        sequence: trades.sequence[at] ?? 0,
        epoch: this.#market.client.connection.epoch,
      });
      this.#pending += 1;
    }
    if (this.#trades.length > 2 * TRADES_MAX) this.#trades = this.#trades.slice(-TRADES_MAX);
  }

  draw(): void {
    if (this.#pending === 0) return this.#align();
    if (this.#paused) return this.#showPause();
    if (this.#linesMax === 0) return;
    const added = this.#trades.slice(-Math.min(this.#pending, this.#linesMax));
    this.#pending = 0;
    for (const trade of added) this.#top().show(this.#market, this.#row, trade, this.#zone, this.#columns);
    this.#align();
    this.#columns.apply();
    this.#note();
  }

  #setTrades(trades: RecentTrade[]): void {
    for (const line of this.#lines) line.element.remove();
    this.#lines = [];
    this.#trades = trades;
    this.#pending = trades.length;
    this.#note();
    this.draw();
  }

  /** A server without this request, or a user without the right to it, has a list that begins with the page. */
  async #load(requests: number): Promise<void> {
    const loading = new AbortController();
    this.#loading = loading;
    const { epoch } = this.#market.client.connection;
    try {
      const url = `/v1/trades/${encodeURIComponent(this.#market.symbol(this.#row))}?limit=${TRADES_MAX}`;
      const response = await this.#market.client.fetch(url, { signal: loading.signal });
      const answer = response.ok ? ((await response.json()) as TradesAnswer) : null;
      if (answer === null || this.#loading !== loading || this.#market.client.connection.epoch !== epoch) return;
      this.#join(tradesOf(answer, epoch), epoch, requests);
    } catch {
      // The list has the live trades.
    } finally {
      if (this.#loading === loading) this.#loading = null;
    }
  }

  #join(history: RecentTrade[], epoch: number, requests: number): void {
    const trades = joined(history, this.#trades, epoch).slice(-TRADES_MAX);
    const isNew = trades.length !== this.#trades.length || trades[0] !== this.#trades[0];
    if (isNew) this.#setTrades(trades);
    // A later answer has the trades between.
    const reaches = history.length === 0 || trades.some(({ sequence }) => sequence === history.at(-1)?.sequence);
    if (!reaches && requests > 1) void this.#load(requests - 1);
  }

  /** The listed trades, oldest first, also those for which the panel has no space. */
  #save(): void {
    const symbol = this.#market.symbol(this.#row);
    const rows = this.#trades.map((trade) => {
      const { at, px, pxExp, pxRest, sz, szExp, szRest, side, sequence } = trade;
      const numbers = [decimal(px, pxExp, pxRest), decimal(sz, szExp, szRest)];
      const rest = [side === "N" ? "" : side, String(sequence ?? "")];
      return [new Date(at).toISOString(), String(at), symbol, ...numbers, ...rest];
    });
    saveText(fileName([symbol, "trades"], Date.now(), "csv"), csvText(CSV_NAMES, rows));
  }

  #showZone(): void {
    const newest = this.#trades.at(-1)?.at ?? Date.now();
    write(field(this.#root, "trades-zone"), `Time · ${this.#zone.label(newest)}`);
  }

  /** Writes all lines again if their number of decimals has changed. */
  #align(): void {
    const digits = this.#market.digits(this.#row);
    if (digits === this.#digits) return;
    this.#digits = digits;
    for (const line of this.#lines) line.rewrite(this.#market, this.#row, this.#columns);
    this.#columns.apply();
  }

  /** A line at the top; a full list moves its bottom line there. */
  #top(): Line {
    const line = (this.#lines.length >= this.#linesMax ? this.#lines.pop() : undefined) ?? new Line();
    this.#lines.unshift(line);
    this.#list.prepend(line.element);
    return line;
  }

  #pause(paused: boolean): void {
    this.#paused = paused;
    this.#showPause();
    if (!paused) this.draw();
  }

  #showPause(): void {
    const waiting = this.#pending > 0 ? ` · ${countText(this.#pending)} new` : "";
    write(field(this.#root, "paused"), this.#paused ? `❚❚ paused${waiting}` : "");
  }

  #note(): void {
    write(field(this.#root, "trades-note"), this.#lines.length === 0 ? "No trades yet" : "");
    this.#showZone();
  }

  #resized({ width, height }: DOMRectReadOnly = new DOMRectReadOnly()): void {
    if (width > 0) this.#root.style.setProperty("--panel-width", `${width}px`);
    this.#linesMax = Math.ceil(height / LINE_HEIGHT);
    while (this.#lines.length > this.#linesMax) this.#lines.pop()?.element.remove();
    // New space is filled with older trades.
    const known = Math.max(0, this.#trades.length - this.#pending);
    const missing = this.#trades.slice(Math.max(0, known - this.#linesMax), known - this.#lines.length).reverse();
    for (const trade of missing) {
      const line = new Line();
      line.show(this.#market, this.#row, trade, this.#zone, this.#columns);
      this.#lines.push(line);
      this.#list.append(line.element);
    }
    this.#columns.apply();
  }
}
