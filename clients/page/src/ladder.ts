/** The depth ladder: grouped levels of both sides with cumulative bars, the best prices in the middle. */

import { Columns, attribute, field, make, part, write } from "./dom.ts";
import { type Level, grouped, groupings } from "./levels.ts";
import type { Market } from "./market.ts";

const LINE_HEIGHT = 19;
/** Height of the line between the sides, with its borders. */
const MIDDLE_HEIGHT = 26;

/** One line in the document. */
class Line {
  readonly element = make("li");
  readonly #px = make("b");
  readonly #sz = make("span");
  readonly #total = make("span");
  #share = -1;

  constructor() {
    this.element.append(this.#px, this.#sz, this.#total);
  }

  show(market: Market, row: number, level: Level | undefined, deepest: number, columns: Columns): void {
    this.element.hidden = level === undefined;
    if (level === undefined) return;
    const total = market.sizeText(row, level.cumulative, level.cumulativeRest);
    const px = market.price(row, level.px);
    write(this.#px, px);
    write(this.#sz, market.sizeText(row, level.sz, level.szRest));
    write(this.#total, total);
    columns.note("price", px);
    // No size is longer than the total.
    columns.note("size", total);
    // In steps of half a percent: smaller ones are not visible, and would cost a repaint.
    const share = Math.round((level.cumulative / deepest) * 200) / 200;
    if (share === this.#share) return;
    this.#share = share;
    this.element.style.backgroundSize = `${share * 100}% calc(100% - 2px)`;
  }
}

export class Ladder {
  readonly #root: HTMLElement;
  readonly #market: Market;
  readonly #select: HTMLSelectElement;
  readonly #asks: Line[] = [];
  readonly #bids: Line[] = [];
  readonly #columns: Columns;
  #row = -1;
  #step = 1;
  #linesMax = 10;
  /** The book, or the space for it, has changed since it was drawn. */
  #dirty = true;
  /** The least step between prices that the groupings were made for; 0 before there are any. */
  #priceStep = 0;
  #note = "";

  constructor(root: HTMLElement, market: Market) {
    this.#root = root;
    this.#market = market;
    this.#columns = new Columns(root);
    this.#select = field<HTMLSelectElement>(root, "grouping");
    this.#select.addEventListener("change", () => {
      this.#step = Number(this.#select.value);
      this.#dirty = true;
      this.draw();
    });
    new ResizeObserver(([entry]) => this.#resized(entry?.contentRect)).observe(part(root, ".book"));
  }

  /** Why the instrument can have no book; empty where it can. */
  set note(note: string) {
    if (note === this.#note) return;
    this.#note = note;
    this.markChanged();
    this.draw();
  }

  /** Shows another instrument. */
  choose(row: number): void {
    this.#row = row;
    [this.#priceStep, this.#step] = [0, 0];
    this.#select.replaceChildren();
    this.#columns.reset();
    field(this.#root, "grouping-label").hidden = true;
    this.markChanged();
    this.draw();
  }

  /** The book has changed. */
  markChanged(): void {
    this.#dirty = true;
  }

  /** Draws the book if it has changed. */
  draw(): void {
    if (!this.#dirty) return;
    this.#dirty = false;
    // A book from before its right was lost is not shown.
    const book = this.#row < 0 || this.#note !== "" ? undefined : this.#market.client.book(this.#row);
    write(field(this.#root, "ladder-note"), book === undefined ? this.#note || "No book yet" : "");
    part(this.#root, ".book").hidden = book === undefined;
    if (book === undefined) return;
    this.#offerGroupings(book.bids.px[0] ?? book.asks.px[0] ?? NaN);
    const asks = grouped(book.asks, this.#step, true, this.#linesMax);
    const bids = grouped(book.bids, this.#step, false, this.#linesMax);
    const deepest = Math.max(asks.at(-1)?.cumulative ?? 0, bids.at(-1)?.cumulative ?? 0, Number.MIN_VALUE);
    const digits = this.#market.digits(this.#row);
    this.#showLines(asks, bids, deepest);
    // A number with more decimals than those before it changes the decimals of all, and perhaps the groupings.
    if (this.#market.priceStep(this.#row) < this.#priceStep) {
      this.#dirty = true;
      this.draw();
      return;
    }
    if (this.#market.digits(this.#row) !== digits) this.#showLines(asks, bids, deepest);
    this.#showMiddle(book.bids.length > 0 ? book.bids.px[0] : NaN, book.asks.length > 0 ? book.asks.px[0] : NaN);
  }

  #showLines(asks: readonly Level[], bids: readonly Level[], deepest: number): void {
    // The best ask is the line next to the middle, the last of its list.
    const lines = this.#asks.length;
    this.#asks.forEach((line, at) => line.show(this.#market, this.#row, asks[lines - 1 - at], deepest, this.#columns));
    this.#bids.forEach((line, at) => line.show(this.#market, this.#row, bids[at], deepest, this.#columns));
    this.#columns.apply();
  }

  /** Between the sides: the last price and the spread. */
  #showMiddle(bid = NaN, ask = NaN): void {
    const both = !Number.isNaN(bid + ask);
    write(field(this.#root, "middle"), this.#market.lastText(this.#row));
    const bp = ((ask - bid) / Math.abs((ask + bid) / 2)) * 10_000;
    const spread = both ? `spread ${this.#market.price(this.#row, ask - bid)} · ${bp.toFixed(2)} bp` : "one side only";
    write(field(this.#root, "spread"), spread);
  }

  /** Offers the groupings of the present step between prices. A choice that was made stays, if it is one of them. */
  #offerGroupings(px: number): void {
    const priceStep = this.#market.priceStep(this.#row);
    if (Number.isNaN(px) || priceStep === this.#priceStep) return;
    const steps = groupings(priceStep, px);
    const isChosen = this.#step !== this.#priceStep && steps.includes(this.#step);
    this.#select.replaceChildren(...steps.map((step) => new Option(this.#market.price(this.#row, step), String(step))));
    if (isChosen) this.#select.value = String(this.#step);
    else this.#step = steps[0] ?? 1;
    this.#priceStep = priceStep;
    field(this.#root, "grouping-label").hidden = false;
    attribute(this.#select, "data-steps", String(steps.length));
  }

  #resized({ width, height }: DOMRectReadOnly = new DOMRectReadOnly()): void {
    if (height === 0) return;
    this.#root.style.setProperty("--panel-width", `${width}px`);
    const lines = Math.max(1, Math.floor((height - MIDDLE_HEIGHT) / 2 / LINE_HEIGHT));
    if (lines === this.#linesMax && this.#asks.length === lines) return;
    this.#linesMax = lines;
    fill(this.#asks, lines, part(this.#root, ".asks"));
    fill(this.#bids, lines, part(this.#root, ".bids"));
    this.#dirty = true;
    this.draw();
  }
}

/** Adds or removes lines so that the list has `count`. */
function fill(lines: Line[], count: number, list: Element): void {
  while (lines.length > count) lines.pop()?.element.remove();
  while (lines.length < count) {
    const line = new Line();
    lines.push(line);
    list.append(line.element);
  }
}
