/** Changes as objects of their own, for callbacks and loops. Text is made where it is asked for. */

import type { Columns } from "./columns";
import { FIELDS } from "./columns";
import { decimal } from "./format";
import type { Mirror } from "./mirror";
import type { QuoteUpdate, TickerUpdate, TradeUpdate } from "./types";

/** Text of mantissas at the exponents that the instrument had then. */
class Base {
  readonly symbol: string;
  readonly sequence!: number;
  readonly flags!: number;
  readonly eventMs!: number;
  readonly eventNs!: number;
  readonly recvMs!: number;
  readonly recvNs!: number;
  readonly #pxExp: number;
  readonly #szExp: number;
  /** Exact values of those that are beyond 2^53. */
  readonly #wide: Record<string, bigint | null> = {};

  /** @param index of the values in their columns @param channel from 1 */
  constructor(mirror: Mirror, from: Columns, index: number, readonly row: number, channel: number) {
    const { instruments } = mirror;
    const fields = FIELDS[channel];
    this.symbol = instruments.symbol(row);
    this.#pxExp = instruments.pxExp[row];
    this.#szExp = instruments.szExp[row];
    const own = this as unknown as Record<string, number>;
    for (const field of ["sequence", "flags", "eventMs", "eventNs", "recvMs", "recvNs"]) own[field] = from[field][index];
    for (const field of fields) {
      own[field] = from[field][index];
      if (Math.abs(own[field]) === Infinity) this.#wide[field] = mirror.exact(channel, row, field, this.sequence);
    }
  }

  protected priceText(field: string): string {
    return decimal(this.#wide[field] ?? (this as unknown as Record<string, number>)[field], this.#pxExp);
  }

  protected sizeText(field: string): string {
    return decimal(this.#wide[field] ?? (this as unknown as Record<string, number>)[field], this.#szExp);
  }
}

export class Quote extends Base implements QuoteUpdate {
  readonly channel = "quote";
  declare bidPx: number;
  declare bidSz: number;
  declare askPx: number;
  declare askSz: number;

  constructor(mirror: Mirror, row: number) {
    super(mirror, mirror.columns[1], row, row, 1);
  }

  get bid(): string {
    return this.priceText("bidPx");
  }
  get bidSize(): string {
    return this.sizeText("bidSz");
  }
  get ask(): string {
    return this.priceText("askPx");
  }
  get askSize(): string {
    return this.sizeText("askSz");
  }
}

export class Ticker extends Base implements TickerUpdate {
  readonly channel = "ticker";
  declare lastPx: number;
  declare openPx: number;
  declare highPx: number;
  declare lowPx: number;
  declare volume: number;
  declare turnover: number;
  declare bidPx: number;
  declare askPx: number;

  constructor(mirror: Mirror, row: number) {
    super(mirror, mirror.columns[3], row, row, 3);
  }

  get last(): string {
    return this.priceText("lastPx");
  }
  get open(): string {
    return this.priceText("openPx");
  }
  get high(): string {
    return this.priceText("highPx");
  }
  get low(): string {
    return this.priceText("lowPx");
  }
  get volumeText(): string {
    return this.sizeText("volume");
  }
  get turnoverText(): string {
    return this.priceText("turnover");
  }
}

export class Trade extends Base implements TradeUpdate {
  readonly channel = "trade";
  readonly side: "buy" | "sell" | "unknown";
  declare px: number;
  declare sz: number;
  declare tradeId: number;

  /** @param index of the trade in the frame's list */
  constructor(mirror: Mirror, index: number) {
    const { trades } = mirror;
    super(mirror, trades, index, trades.row[index], 2);
    const side = trades.side[index];
    this.side = side === 66 ? "buy" : side === 83 ? "sell" : "unknown";
  }
  get price(): string {
    return this.priceText("px");
  }
  get size(): string {
    return this.sizeText("sz");
  }
}
