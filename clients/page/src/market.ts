/**
 * The values of an instrument for the panels: read or computed from the client's columns, never copied.
 *
 * Rows are the client's: an instrument keeps its row over reconnects and restarts of the server. The row of an
 * instrument that the server has released has no symbol, and is not listed.
 */

import { decimal, type Client, type InstrumentState, type QuoteField, type TickerField } from "tickcast";
import { liveText } from "./delay.ts";
import { Digits, NONE, priceText, spareOfTick, withDecimals } from "./format.ts";
import { type Candidate, searchKey } from "./order.ts";
import type { RecentTrade } from "./recent-trades.ts";

export class Market {
  readonly client: Client;
  readonly #prices = new Digits();
  readonly #sizes = new Digits();
  #keys: (readonly string[])[] = [];
  /** By row: exponents, tick and lot size of the definition. */
  #units: string[] = [];
  /** By row: how often these have changed. */
  #revisions: number[] = [];
  /** By row: the server's epoch of the last definition. */
  #epochs: number[] = [];

  constructor(client: Client) {
    this.client = client;
  }

  /** The number of rows. */
  get rows(): number {
    return this.client.instruments.length;
  }

  /** Whether the server has not released the instrument. */
  isKnown(row: number): boolean {
    return this.symbol(row) !== "";
  }

  symbol(row: number): string {
    return this.client.instruments.symbol(row);
  }

  state(row: number): InstrumentState {
    return this.client.state(row);
  }

  /** The state for a user to read. */
  stateText(row: number): string {
    return liveText(this.state(row), this.client.connection.delayS);
  }

  /** Symbol and venue as the search compares them. */
  searchKeys(row: number): readonly string[] {
    return (this.#keys[row] ??= [this.symbol(row), this.client.instruments.venue(row)].map(searchKey));
  }

  /** Whether there is a last price or a quote. */
  hasValues(row: number): boolean {
    const { bidPx, askPx } = this.client.quotes;
    return [this.last(row), bidPx[row], askPx[row]].some((px) => px !== undefined && !Number.isNaN(px));
  }

  /** What is known of the instrument when the page chooses one by itself. */
  candidate(row: number): Candidate {
    return { symbol: this.symbol(row), state: this.state(row), hasValues: this.hasValues(row) };
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

  /** The last price as text. */
  lastText(row: number): string {
    return this.price(row, this.last(row), this.#lastRest(row));
  }

  /** The last price as plain decimal text; empty where there is none. */
  lastDecimal(row: number): string {
    return this.client.format(row, this.last(row), this.#lastRest(row));
  }

  #lastRest(row: number): number | undefined {
    const { lastTrades: trades, tickers } = this.client;
    const last = this.last(row);
    const isTrade = last === trades.px[row] && !(this.#tickerIsNewer(row) && last === tickers.lastPx[row]);
    return isTrade ? trades.pxRest[row] : tickers.lastPxRest[row];
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
    const { quotes } = this.client;
    return this.price(row, quotes[name][row] ?? NaN, quotes[`${name}Rest`][row]);
  }

  /** The size of the best bid or ask as text. */
  quoteSizeText(row: number, name: "bidSz" | "askSz"): string {
    const { quotes } = this.client;
    return this.sizeText(row, quotes[name][row] ?? NaN, quotes[`${name}Rest`][row]);
  }

  tickerText(row: number, name: TickerField): string {
    const { tickers } = this.client;
    return this.price(row, tickers[name][row] ?? NaN, tickers[`${name}Rest`][row]);
  }

  /** The price of a trade, perhaps at former exponents of the instrument. */
  tradePriceText(row: number, { px, pxRest, pxExp }: RecentTrade): string {
    const now = this.client.instruments.pxExp[row] ?? 0;
    return this.#priceText(row, withDecimals(decimal(px, pxExp, pxRest), Math.max(0, -now)));
  }

  /** Its size. */
  tradeSizeText(row: number, { sz, szRest, szExp }: RecentTrade): string {
    const now = this.client.instruments.szExp[row] ?? 0;
    return this.#sizeText(row, withDecimals(decimal(sz, szExp, szRest), Math.max(0, -now)));
  }

  /** A price as text. `rest` is what the exact mantissa is above the number. */
  price(row: number, mantissa: number, rest = 0): string {
    return this.#priceText(row, this.client.format(row, mantissa, rest));
  }

  #priceText(row: number, text: string): string {
    if (text === "") return NONE;
    const { tickSize, pxExp } = this.client.instruments;
    const cut = this.#prices.cut(row, text, () => spareOfTick(tickSize[row] ?? NaN, pxExp[row] ?? 0));
    return priceText(text, cut);
  }

  /** A size as text, with the decimals of the instrument's lot size, else with those of its sizes so far. */
  sizeText(row: number, mantissa: number, rest = 0): string {
    return this.#sizeText(row, this.client.formatSize(row, mantissa, rest));
  }

  #sizeText(row: number, text: string): string {
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

  /** The least step between the row's prices, as a mantissa: its tick, else that of the decimals of its prices so far. */
  priceStep(row: number): number {
    const tick = this.client.instruments.tickSize[row] ?? NaN;
    return tick > 0 ? tick : 10 ** Math.max(0, this.#prices.spare(row));
  }

  /** The shown decimals of the row's prices. */
  decimals(row: number): number {
    return Math.max(0, -(this.client.instruments.pxExp[row] ?? 0) - Math.max(0, this.#prices.spare(row)));
  }

  /**
   * Takes a definition: if exponents, tick or lot size differ from those of the last one, resets the decimals, and
   * returns true. Each connection repeats definitions.
   */
  redefined(row: number): boolean {
    delete this.#keys[row];
    this.#epochs[row] = this.client.connection.epoch;
    const { pxExp, szExp, tickSize, lotSize } = this.client.instruments;
    const units = [pxExp[row], szExp[row], tickSize[row], lotSize[row]].join(" ");
    const former = this.#units[row];
    if (former === units) return false;
    this.#units[row] = units;
    this.#revisions[row] = this.revision(row) + 1;
    this.#prices.forget(row);
    this.#sizes.forget(row);
    return former !== undefined;
  }

  /** Changes when mantissas of the row are not comparable with former ones. */
  revision(row: number): number {
    return this.#revisions[row] ?? 0;
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
