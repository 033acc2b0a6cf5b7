/**
 * What panels ask about an instrument: the client's columns, and what follows from them. Nothing is copied.
 *
 * A row is the client's: an instrument keeps it over reconnects and restarts of the server.
 */

import type { Client, InstrumentState, QuoteField, TickerField } from "tickcast";
import { Digits, NONE, priceText, spareOfTick } from "./format.ts";

export class Market {
  readonly client: Client;
  readonly #prices = new Digits();
  readonly #sizes = new Digits();
  #keys: string[] = [];
  /** By row: what a definition says about numbers. */
  #units: string[] = [];
  /** By row: the run of the server that has defined the instrument. */
  #epochs: number[] = [];

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
    if (text === "") return NONE;
    const { tickSize, pxExp } = this.client.instruments;
    const cut = this.#prices.cut(row, text, () => spareOfTick(tickSize[row] ?? NaN, pxExp[row] ?? 0));
    return priceText(text, cut);
  }

  /** A size as text, with the decimals of the instrument's lots, else with those that its sizes have used so far. */
  sizeText(row: number, mantissa: number): string {
    const text = this.client.formatSize(row, mantissa);
    if (text === "") return NONE;
    const { lotSize, szExp } = this.client.instruments;
    const lot = lotSize[row] ?? NaN;
    const exponent = szExp[row] ?? 0;
    const cut = this.#sizes.cut(row, text, () => (lot > 0 ? spareOfTick(lot, exponent) : Math.max(0, -exponent)));
    return priceText(text, cut);
  }

  /** Differs where texts of a row that were written before have fewer decimals than they would have now. */
  digits(row: number): number {
    return this.#prices.spare(row) * 1000 + this.#sizes.spare(row);
  }

  /** Decimals of the row's prices that are shown. */
  decimals(row: number): number {
    return Math.max(0, -(this.client.instruments.pxExp[row] ?? 0) - Math.max(0, this.#prices.spare(row)));
  }

  /** Takes a definition: what another one said is forgotten. One that is the same comes with each connection. */
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

  /** Whether the server that the page is connected to has defined the instrument, in its present run. */
  isDefined(row: number): boolean {
    return this.#epochs[row] === this.client.connection.epoch;
  }

  #tickerIsNewer(row: number): boolean {
    const { lastTrades: trades, tickers } = this.client;
    const [traded, told] = [trades.recvMs[row] ?? 0, tickers.recvMs[row] ?? 0];
    return told > traded || (told === traded && (tickers.recvNs[row] ?? 0) > (trades.recvNs[row] ?? 0));
  }
}
