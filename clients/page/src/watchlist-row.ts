/** One row of the watchlist in the document: the elements of the template, and the values last written into them. */

import { NONE, compactText, percentText } from "./format.ts";
import type { Market } from "./market.ts";
import { type Columns, attribute, digitsWide, field, mark, part, write } from "./dom.ts";
import { SparkLine } from "./spark.ts";

/** How long a moved price flashes. The colour is set and removed, not faded: a fade would paint every frame. */
const FLASH_MS = 350;

/** Longer numbers may not fit: the style sheet then reduces their font. */
const DIGITS_LONG = 7.5;
/** Longer numbers would be too small to read in one line, and get two. */
const DIGITS_TWO_LINES = 12;

/** A cell with a price that flashes when it moves, with an arrow beside it. */
class PriceCell {
  readonly #cell: HTMLElement;
  readonly #value: HTMLElement;
  readonly #arrow: HTMLElement;
  readonly #columns: Columns;
  #digits = 0;
  #shown = NaN;
  #flashUntil = 0;

  constructor(row: HTMLElement, name: string, columns: Columns) {
    this.#columns = columns;
    this.#cell = part(row, `.${name}`);
    this.#value = field(row, name);
    this.#arrow = part(this.#cell, "i");
  }

  /** Resets the cell for another instrument. */
  reset(): void {
    this.#shown = NaN;
    this.#flashUntil = 0;
    mark(this.#cell, "flash", "");
    mark(this.#cell, "move", "");
    write(this.#arrow, "");
  }

  show(px: number, textOf: () => string, now: number, flashes: boolean): void {
    const before = this.#shown;
    // NaN differs from itself, and two prices beyond 2^53 may be one number: such a cell is written each time, at the
    // cost of comparing two texts.
    if (px === before && Number.isSafeInteger(px)) return;
    this.#shown = px;
    this.write(textOf());
    if (Number.isNaN(before) || Number.isNaN(px) || px === before) return;
    mark(this.#cell, "move", px > before ? "up" : "down");
    write(this.#arrow, px > before ? "▲" : "▼");
    if (!flashes) return;
    this.#flashUntil = now + FLASH_MS;
    mark(this.#cell, "flash", "yes");
  }

  write(text: string): void {
    write(this.#value, text);
    this.#fit(text);
  }

  #fit(text: string): void {
    this.#columns.note("price", text);
    const digits = digitsWide(text);
    if (digits === this.#digits) return;
    this.#digits = digits;
    mark(this.#cell, "long", digits > DIGITS_TWO_LINES ? "two-lines" : digits > DIGITS_LONG ? "yes" : "");
    this.#value.style.setProperty("--digits", String(digits));
  }

  endFlash(now: number): void {
    if (this.#flashUntil === 0 || now < this.#flashUntil) return;
    this.#flashUntil = 0;
    mark(this.#cell, "flash", "");
  }
}

export class WatchlistRow {
  readonly element: HTMLElement;
  /** The instrument's row in the client's columns; -1 while it is unused. */
  row = -1;
  index = -1;
  /** {@link Market.revision} of the prices that are shown. */
  #revision = 0;
  readonly #pin: HTMLButtonElement;
  readonly #symbol: HTMLElement;
  readonly #venue: HTMLElement;
  readonly #spark: SparkLine;
  readonly #change: HTMLElement;
  readonly #changeCell: HTMLElement;
  readonly #spread: HTMLElement;
  readonly #volume: HTMLElement;
  readonly #state: HTMLElement;
  readonly #prices: { bid: PriceCell; ask: PriceCell; last: PriceCell };

  constructor(template: HTMLTemplateElement, columns: Columns) {
    const element = template.content.firstElementChild?.cloneNode(true);
    if (!(element instanceof HTMLElement)) throw new Error("the page lacks the row's template");
    this.element = element;
    this.#pin = part<HTMLButtonElement>(element, "[data-action=pin]");
    [this.#symbol, this.#venue] = [field(element, "symbol"), field(element, "venue")];
    this.#spark = new SparkLine(part<SVGElement>(element, ".spark svg"));
    [this.#change, this.#spread] = [field(element, "change"), field(element, "spread")];
    this.#changeCell = part(element, ".change");
    [this.#volume, this.#state] = [field(element, "volume"), field(element, "state")];
    const price = (name: string): PriceCell => new PriceCell(element, name, columns);
    this.#prices = { bid: price("bid"), ask: price("ask"), last: price("last") };
  }

  /** Assigns this row to an instrument. */
  assign(market: Market, row: number): void {
    this.row = row;
    const { bid, ask, last } = this.#prices;
    for (const price of [bid, ask, last]) price.reset();
    this.element.id = `instrument-${row}`;
    mark(this.element, "row", market.symbol(row));
    write(this.#symbol, market.symbol(row));
  }

  setPosition(index: number, height: number): void {
    if (index === this.index) return;
    this.index = index;
    this.element.style.top = `${index * height}px`;
    // The header is the grid's first row.
    attribute(this.element, "aria-rowindex", String(index + 2));
  }

  /** Writes differences. `flashes`: prices that moved flash. */
  show(market: Market, now: number, flashes: boolean): void {
    const { row } = this;
    const { quotes } = market.client;
    const { bid, ask, last } = this.#prices;
    const revision = market.revision(row);
    if (revision !== this.#revision) for (const price of [bid, ask, last]) price.reset();
    this.#revision = revision;
    write(this.#venue, market.client.instruments.venue(row));
    const digits = market.digits(row);
    const [bidText, askText] = [() => market.quoteText(row, "bidPx"), () => market.quoteText(row, "askPx")];
    bid.show(quotes.bidPx[row] ?? NaN, bidText, now, flashes);
    ask.show(quotes.askPx[row] ?? NaN, askText, now, flashes);
    last.show(market.last(row), () => market.lastText(row), now, flashes);
    // A price with more decimals than those before it changes the decimals of all.
    if (market.digits(row) !== digits) {
      bid.write(bidText());
      ask.write(askText());
      last.write(market.lastText(row));
    }
    const percent = percentText(market.change(row));
    write(this.#change, percent);
    const sign = percent.charAt(0);
    mark(this.#changeCell, "move", sign === "+" ? "up" : sign === "−" ? "down" : "");
    const spread = market.spreadBp(row);
    write(this.#spread, Number.isNaN(spread) ? NONE : spread.toFixed(spread < 10 ? 2 : 1));
    write(this.#volume, compactText(market.volume(row)));
    const state = market.state(row);
    write(this.#state, market.stateText(row));
    mark(this.element, "state", state);
  }

  /** Sets the marks of the user: chosen, active, pinned. */
  flag(chosen: boolean, active: boolean, pinned: boolean): void {
    attribute(this.element, "aria-selected", String(chosen));
    mark(this.element, "active", active ? "yes" : "");
    attribute(this.#pin, "aria-pressed", String(pinned));
  }

  spark(points: Float32Array): void {
    this.#spark.show(points);
  }

  endFlash(now: number): void {
    const { bid, ask, last } = this.#prices;
    bid.endFlash(now);
    ask.endFlash(now);
    last.endFlash(now);
  }
}
