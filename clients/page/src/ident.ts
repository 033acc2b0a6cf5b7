/** The header of the chosen instrument: name, state, last price, change, figures of the day. */

import { field, mark, write } from "./dom.ts";
import { NONE, compactText, percentText } from "./format.ts";
import type { Market } from "./market.ts";

const FIELDS = ["symbol", "venue", "state", "last", "change", "bid", "ask", "high", "low", "volume"] as const;

type Parts = Record<(typeof FIELDS)[number], HTMLElement>;

export class Ident {
  readonly #root: HTMLElement;
  readonly #market: Market;
  readonly #parts: Parts;
  #row = -1;
  #last = NaN;
  /** {@link Market.revision} of the last price. */
  #revision = 0;

  constructor(root: HTMLElement, market: Market) {
    this.#root = root;
    this.#market = market;
    this.#parts = Object.fromEntries(FIELDS.map((name) => [name, field(root, name)])) as Parts;
  }

  choose(row: number): void {
    this.#row = row;
    this.#last = NaN;
    mark(this.#parts.last, "move", "");
    this.draw();
  }

  /** Shows a symbol that the server does not have, or not yet. */
  showUnknown(symbol: string): void {
    this.#row = -1;
    write(this.#parts.symbol, symbol === "" ? NONE : symbol);
    for (const name of FIELDS.slice(1)) write(this.#parts[name], NONE);
    write(this.#parts.venue, "");
    write(this.#parts.state, symbol === "" ? "" : "unknown instrument");
    mark(this.#root, "state", "");
  }

  draw(): void {
    const [row, market] = [this.#row, this.#market];
    if (row < 0) return;
    const parts = this.#parts;
    write(parts.symbol, market.symbol(row));
    write(parts.venue, market.client.instruments.venue(row));
    const state = market.state(row);
    write(parts.state, market.stateText(row));
    mark(this.#root, "state", state);
    this.#showLast();
    write(
      parts.bid,
      withSize(market.quoteText(row, "bidPx"), market.quoteSizeText(row, "bidSz")),
    );
    write(
      parts.ask,
      withSize(market.quoteText(row, "askPx"), market.quoteSizeText(row, "askSz")),
    );
    write(parts.high, market.tickerText(row, "highPx"));
    write(parts.low, market.tickerText(row, "lowPx"));
    write(parts.volume, compactText(market.volume(row)));
  }

  /** `BTC-USD 61,837.63`, for the title of the page; without a price the symbol; empty where no instrument is shown. */
  get priceText(): string {
    if (this.#row < 0) return "";
    const last = this.#market.lastText(this.#row);
    return last === NONE ? this.#market.symbol(this.#row) : `${this.#market.symbol(this.#row)} ${last}`;
  }

  #showLast(): void {
    const last = this.#market.last(this.#row);
    const revision = this.#market.revision(this.#row);
    if (revision !== this.#revision) this.#last = NaN;
    this.#revision = revision;
    if (last > this.#last) mark(this.#parts.last, "move", "up");
    if (last < this.#last) mark(this.#parts.last, "move", "down");
    this.#last = last;
    write(this.#parts.last, this.#market.lastText(this.#row));
    const percent = percentText(this.#market.change(this.#row));
    write(this.#parts.change, percent);
    mark(this.#parts.change, "move", percent.startsWith("+") ? "up" : percent.startsWith("−") ? "down" : "");
  }
}

function withSize(price: string, size: string): string {
  return price === NONE ? NONE : `${price} × ${size}`;
}
