/**
 * The values of an instrument for the panels: read or computed from the client's columns, never copied.
 *
 * Rows are the client's: an instrument keeps its row over reconnects and restarts of the server.
 */

import type { Client, InstrumentState, QuoteField, TickerField } from "tickcast";
import { Digits, NONE, priceText, spareOfTick } from "./format.ts";

export class Market {
  readonly client: Client;
  readonly #prices = new Digits();
  readonly #sizes = new Digits();
  #keys: string[] = [];
  /** By row: exponents, tick and lot size of the definition. */
  #units: string[] = [];
  /** By row: the server's epoch of the last definition. */
  #epochs: number[] = [];

  constructor(client: Client) {
    this.client = client;
  }

  /** The number of rows. */
  get rows(): number {
    return this.client.instruments.length;
  }

  symbol(row: number): string {
    return this.client.instruments.symbol(row);
  }

  state(row: number): InstrumentState {
    return this.client.state(row);
  }

  /** Symbol and venue in lower case, for the search. */
  searchKey(row: number): string {
    return (this.#keys[row] ??= `${this.symbol(row)} ${this.client.instruments.venue(row)}`.toLowerCase());
  }

  /** The last price, a mantissa: the newer of the last trade and the ticker. */
  last(row: number): number {
    const { lastTrades: trades, tickers } = this.client;
    const traded = trades.px[row] ?? NaN;
    const ticker = tickers.lastPx[row] ?? NaN;
    if (Number.isNaN(traded)) return ticker;
    if (Number.isNaN(ticker)) return traded;
    return this.#tickerIsNewer(row) ? ticker : traded;
  }

  /** The last price as text, exact also beyond 2^53. */
  lastText(row: number): string {
    const { client } = this;
    return this.price(row, this.last(row), () =>
      this.#tickerIsNewer(row) ? client.exact("ticker", row, "lastPx") : client.exact("trade", row, "px"),
    );
  }

  /** The change since the ticker's open in percent; NaN where that is unknown. */
  change(row: number): number {
    const open = this.client.tickers.openPx[row] ?? NaN;
    return open === 0 ? NaN : ((this.last(row) - open) / Math.abs(open)) * 100;
  }

  /** Ask minus bid in basis points of the middle; NaN where one of them is missing. */
  spreadBp(row: number): number {
    const { bidPx, askPx } = this.client.quotes;
    const [bid, ask] = [bidPx[row] ?? NaN, askPx[row] ?? NaN];
    const middle = (bid + ask) / 2;
    return middle === 0 ? NaN : ((ask - bid) / Math.abs(middle)) * 10_000;
  }

  /** The 24 h volume, in units of the instrument. */
  volume(row: number): number {
    return this.client.size(row, this.client.tickers.volume[row] ?? NaN);
  }

  quoteText(row: number, name: QuoteField): string {
    return this.price(row, this.client.quotes[name][row] ?? NaN, () => this.client.exact("quote", row, name));
  }

  tickerText(row: number, name: TickerField): string {
    return this.price(row, this.client.tickers[name][row] ?? NaN, () => this.client.exact("ticker", row, name));
  }

  /** A price as text. `exact` returns a mantissa beyond 2^53. */
  price(row: number, mantissa: number, exact?: () => bigint | null): string {
    const whole = Number.isFinite(mantissa) || exact === undefined ? mantissa : exact();
    const text = this.client.format(row, whole);
    if (text === "") return NONE;
    const { tickSize, pxExp } = this.client.instruments;
    const cut = this.#prices.cut(row, text, () => spareOfTick(tickSize[row] ?? NaN, pxExp[row] ?? 0));
    return priceText(text, cut);
  }

  /** A size as text, with the decimals of the instrument's lot size, else with those of its sizes so far. */
  sizeText(row: number, mantissa: number): string {
    const text = this.client.formatSize(row, mantissa);
    if (text === "") return NONE;
    const { lotSize, szExp } = this.client.instruments;
    const lot = lotSize[row] ?? NaN;
    const exponent = szExp[row] ?? 0;
    const cut = this.#sizes.cut(row, text, () => (lot > 0 ? spareOfTick(lot, exponent) : Math.max(0, -exponent)));
    return priceText(text, cut);
  }

  /** Changes when the row's texts get more decimals: texts written before are then to be written again. */
  digits(row: number): number {
    return this.#prices.spare(row) * 1000 + this.#sizes.spare(row);
  }

  /** The shown decimals of the row's prices. */
  decimals(row: number): number {
    return Math.max(0, -(this.client.instruments.pxExp[row] ?? 0) - Math.max(0, this.#prices.spare(row)));
  }

  /** Takes a definition: if it differs from the last one, resets the decimals. Each connection repeats definitions. */
  redefined(row: number): void {
    delete this.#keys[row];
    this.#epochs[row] = this.client.connection.epoch;
    const { pxExp, szExp, tickSize, lotSize } = this.client.instruments;
    const units = [pxExp[row], szExp[row], tickSize[row], lotSize[row]].join(" ");
    if (this.#units[row] === units) return;
    this.#units[row] = units;
    this.#prices.forget(row);
    this.#sizes.forget(row);
  }

  /** Whether the server has defined the instrument in its present epoch. */
  isDefined(row: number): boolean {
    return this.#epochs[row] === this.client.connection.epoch;
  }

  #tickerIsNewer(row: number): boolean {
    const { lastTrades: trades, tickers } = this.client;
    const [traded, ticker] = [trades.recvMs[row] ?? 0, tickers.recvMs[row] ?? 0];
    return ticker > traded || (ticker === traded && (tickers.recvNs[row] ?? 0) > (trades.recvNs[row] ?? 0));
  }
}
