/**
 * What panels ask about an instrument: the client's columns, and what follows from them. Nothing is copied.
 *
 * A row is the client's: an instrument keeps it over reconnects and restarts of the server.
 */

import type { Client, InstrumentState, QuoteField, TickerField } from "tickcast";
import { NONE, priceText, spareOfTick, spareZeros } from "./format.ts";

export class Market {
  readonly client: Client;
  /** Decimals at the end that no price of a row has used so far. */
  #spare = new Int8Array(0);
  #keys: string[] = [];

  constructor(client: Client) {
    this.client = client;
  }

  /** Rows there are. */
  get rows(): number {
    return this.client.instruments.length;
  }

  symbol(row: number): string {
    return this.client.instruments.symbol(row);
  }

  state(row: number): InstrumentState {
    return this.client.state(row);
  }

  /** Symbol and venue in lower case, as the search compares them. */
  searchKey(row: number): string {
    return (this.#keys[row] ??= `${this.symbol(row)} ${this.client.instruments.venue(row)}`.toLowerCase());
  }

  /** The last price, a mantissa: the newer of the last trade and the ticker. */
  last(row: number): number {
    const { lastTrades: trades, tickers } = this.client;
    const traded = trades.px[row] ?? NaN;
    const told = tickers.lastPx[row] ?? NaN;
    if (Number.isNaN(traded)) return told;
    if (Number.isNaN(told)) return traded;
    return this.#tickerIsNewer(row) ? told : traded;
  }

  /** The last price as text, exact also where a number could not hold it. */
  lastText(row: number): string {
    const { client } = this;
    return this.price(row, this.last(row), () =>
      this.#tickerIsNewer(row) ? client.exact("ticker", row, "lastPx") : client.exact("trade", row, "px"),
    );
  }

  /** Percent since the open of the ticker; NaN where it is not known. */
  change(row: number): number {
    const open = this.client.tickers.openPx[row] ?? NaN;
    return open === 0 ? NaN : ((this.last(row) - open) / Math.abs(open)) * 100;
  }

  /** Ask minus bid in hundredths of a percent of the middle; NaN where one of them is missing. */
  spreadBp(row: number): number {
    const { bidPx, askPx } = this.client.quotes;
    const [bid, ask] = [bidPx[row] ?? NaN, askPx[row] ?? NaN];
    const middle = (bid + ask) / 2;
    return middle === 0 ? NaN : ((ask - bid) / Math.abs(middle)) * 10_000;
  }

  /** Volume of 24 hours in units of the instrument. */
  volume(row: number): number {
    return this.client.size(row, this.client.tickers.volume[row] ?? NaN);
  }

  quoteText(row: number, name: QuoteField): string {
    return this.price(row, this.client.quotes[name][row] ?? NaN, () => this.client.exact("quote", row, name));
  }

  tickerText(row: number, name: TickerField): string {
    return this.price(row, this.client.tickers[name][row] ?? NaN, () => this.client.exact("ticker", row, name));
  }

  /** A price as text. `exact` brings what a number cannot hold. */
  price(row: number, mantissa: number, exact?: () => bigint | null): string {
    const whole = Number.isFinite(mantissa) || exact === undefined ? mantissa : exact();
    const text = this.client.format(row, whole);
    return text === "" ? NONE : priceText(text, this.#cut(row, text));
  }

  /** A size as text, with the decimals of the instrument's lots. */
  sizeText(row: number, mantissa: number): string {
    const text = this.client.formatSize(row, mantissa);
    if (text === "") return NONE;
    const { lotSize, szExp } = this.client.instruments;
    const lot = lotSize[row] ?? NaN;
    const most = lot > 0 ? spareOfTick(lot, szExp[row] ?? 0) : Infinity;
    return priceText(text, spareZeros(text, most));
  }

  /** Decimals of the row's prices that are shown. */
  decimals(row: number): number {
    return Math.max(0, -(this.client.instruments.pxExp[row] ?? 0) - (this.#spare[row] ?? 0));
  }

  /** Forgets what an old definition said. */
  redefined(row: number): void {
    delete this.#keys[row];
    if (row < this.#spare.length) this.#spare[row] = -1;
  }

  #cut(row: number, text: string): number {
    if (row >= this.#spare.length) {
      const grown = new Int8Array(Math.max(256, 2 * row)).fill(-1);
      grown.set(this.#spare);
      this.#spare = grown;
    }
    let spare = this.#spare[row] ?? -1;
    if (spare < 0) {
      const { tickSize, pxExp } = this.client.instruments;
      spare = spareOfTick(tickSize[row] ?? NaN, pxExp[row] ?? 0);
    }
    spare = spareZeros(text, spare);
    this.#spare[row] = spare;
    return spare;
  }

  #tickerIsNewer(row: number): boolean {
    const { lastTrades: trades, tickers } = this.client;
    const [traded, told] = [trades.recvMs[row] ?? 0, tickers.recvMs[row] ?? 0];
    return told > traded || (told === traded && (tickers.recvNs[row] ?? 0) > (trades.recvNs[row] ?? 0));
  }
}
