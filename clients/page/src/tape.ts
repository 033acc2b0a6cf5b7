/**
 * Time and sales: the newest trades of the chosen instrument, first on top. While the pointer rests on the list it
 * holds still, and says how many trades wait.
 */

import type { TradeList } from "tickcast";
import { Columns, field, make, mark, part, write } from "./dom.ts";
import { clockText, countText } from "./format.ts";
import type { Market } from "./market.ts";
import { type RecentTrades, type Sale, sideOf } from "./recent.ts";

const LINE_HEIGHT = 19;
/** Trades that are kept; no pane shows more. */
const TRADES_MAX = 200;

/** One line in the document. */
class Line {
  readonly element = make("li");
  readonly #time = make("time");
  readonly #px = make("b");
  readonly #sz = make("span");
  #sale: Sale | undefined;

  constructor() {
    this.element.append(this.#time, this.#px, this.#sz);
  }

  show(market: Market, row: number, sale: Sale, columns: Columns): void {
    this.#sale = sale;
    write(this.#time, clockText(sale.at, true));
    this.rewrite(market, row, columns);
    mark(this.element, "side", sale.side);
    this.element.title = sale.side === "B" ? "buyer took" : sale.side === "S" ? "seller took" : "";
  }

  /** Writes the numbers again, with the decimals that hold now. */
  rewrite(market: Market, row: number, columns: Columns): void {
    if (this.#sale === undefined) return;
    const [px, sz] = [market.price(row, this.#sale.px), market.sizeText(row, this.#sale.sz)];
    write(this.#px, px);
    write(this.#sz, sz);
    columns.note("price", px);
    columns.note("size", sz);
  }
}

export class Tape {
  readonly #root: HTMLElement;
  readonly #market: Market;
  readonly #recent: RecentTrades;
  readonly #list: HTMLElement;
  readonly #columns: Columns;
  /** Oldest first. */
  #sales: Sale[] = [];
  /** How many of the newest sales the document lacks. */
  #pending = 0;
  /** In the document, top to bottom. */
  #lines: Line[] = [];
  #linesMax = 0;
  /** Of the lines, see {@link Market.digits}. */
  #digits = NaN;
  #row = -1;
  #paused = false;

  constructor(root: HTMLElement, market: Market, recent: RecentTrades) {
    this.#root = root;
    this.#market = market;
    this.#recent = recent;
    this.#list = part(root, ".trades");
    this.#columns = new Columns(root);
    this.#list.addEventListener("pointerenter", (event) => this.#pause(event.pointerType === "mouse"));
    this.#list.addEventListener("pointerleave", () => this.#pause(false));
    new ResizeObserver(([entry]) => {
      this.#resized(entry?.contentRect);
      // What came while there was no room has waited.
      this.draw();
    }).observe(this.#list);
  }

  /** Shows another instrument: its newest trades that are known, and what comes. */
  choose(row: number): void {
    this.#row = row;
    this.#columns.reset();
    for (const line of this.#lines) line.element.remove();
    this.#lines = [];
    this.#sales = row < 0 ? [] : this.#recent.of(row, TRADES_MAX);
    this.#pending = this.#sales.length;
    this.#note();
    this.draw();
  }

  /** Takes the frame's trades of the chosen instrument; {@link Tape.draw} shows them. */
  take(trades: TradeList): void {
    for (let at = 0; at < trades.length; at++) {
      if (trades.row[at] !== this.#row) continue;
      this.#sales.push({
        at: trades.eventMs[at] || trades.recvMs[at] || 0,
        px: trades.px[at] ?? NaN,
        sz: trades.sz[at] ?? NaN,
        side: sideOf(trades.side[at]),
      });
      this.#pending += 1;
    }
    if (this.#sales.length > 2 * TRADES_MAX) this.#sales = this.#sales.slice(-TRADES_MAX);
  }

  draw(): void {
    if (this.#pending === 0) return this.#align();
    if (this.#paused) return this.#showPause();
    if (this.#linesMax === 0) return;
    const fresh = this.#sales.slice(-Math.min(this.#pending, this.#linesMax));
    this.#pending = 0;
    for (const sale of fresh) this.#top().show(this.#market, this.#row, sale, this.#columns);
    this.#align();
    this.#columns.apply();
    this.#note();
  }

  /** Gives all lines the same decimals, after a number came that has more than any before it. */
  #align(): void {
    const digits = this.#market.digits(this.#row);
    if (digits === this.#digits) return;
    this.#digits = digits;
    for (const line of this.#lines) line.rewrite(this.#market, this.#row, this.#columns);
    this.#columns.apply();
  }

  /** A line at the top: the one at the bottom, once the list is full. */
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
    write(field(this.#root, "tape-note"), this.#lines.length === 0 ? "No trades yet" : "");
  }

  #resized({ width, height }: DOMRectReadOnly = new DOMRectReadOnly()): void {
    if (width > 0) this.#root.style.setProperty("--room", `${width}px`);
    this.#linesMax = Math.ceil(height / LINE_HEIGHT);
    while (this.#lines.length > this.#linesMax) this.#lines.pop()?.element.remove();
    // Room that was won is filled with what is known already.
    const known = Math.max(0, this.#sales.length - this.#pending);
    const missing = this.#sales.slice(Math.max(0, known - this.#linesMax), known - this.#lines.length).reverse();
    for (const sale of missing) {
      const line = new Line();
      line.show(this.#market, this.#row, sale, this.#columns);
      this.#lines.push(line);
      this.#list.append(line.element);
    }
    this.#columns.apply();
  }
}
