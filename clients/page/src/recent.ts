/**
 * The newest trades of all instruments in one ring of columns, so that a list that is opened has something to show at
 * once. Taking a trade is five stores; asking for one instrument's walks the ring, some 16,000 entries, once.
 */

import { SIDE, type TradeList } from "tickcast";

const TRADES_MAX = 16_384;

export interface Sale {
  /** When the venue had it, else when the server did: ms since the Unix epoch. */
  readonly at: number;
  /** Mantissas. */
  readonly px: number;
  readonly sz: number;
  /** Of the aggressor. */
  readonly side: "B" | "S" | "N";
}

export class RecentTrades {
  readonly #row = new Int32Array(TRADES_MAX).fill(-1);
  readonly #at = new Float64Array(TRADES_MAX);
  readonly #px = new Float64Array(TRADES_MAX);
  readonly #sz = new Float64Array(TRADES_MAX);
  readonly #side = new Uint8Array(TRADES_MAX);
  #head = 0;

  take(trades: TradeList): void {
    for (let at = 0; at < trades.length; at++) {
      const to = this.#head;
      this.#row[to] = trades.row[at] ?? -1;
      this.#at[to] = trades.eventMs[at] || trades.recvMs[at] || 0;
      this.#px[to] = trades.px[at] ?? NaN;
      this.#sz[to] = trades.sz[at] ?? NaN;
      this.#side[to] = trades.side[at] ?? SIDE.unknown;
      this.#head = (to + 1) % TRADES_MAX;
    }
  }

  /** Of one row, at most so many, the oldest first. */
  of(row: number, most: number): Sale[] {
    const sales: Sale[] = [];
    for (let back = 1; back <= TRADES_MAX && sales.length < most; back++) {
      const from = (this.#head - back + TRADES_MAX) % TRADES_MAX;
      if (this.#row[from] === row) sales.push(this.#sale(from));
    }
    return sales.reverse();
  }

  #sale(from: number): Sale {
    return {
      at: this.#at[from] ?? 0,
      px: this.#px[from] ?? NaN,
      sz: this.#sz[from] ?? NaN,
      side: sideOf(this.#side[from]),
    };
  }
}

/** The aggressor's side as the letter of the wire. */
export function sideOf(code: number | undefined): Sale["side"] {
  return code === SIDE.buy ? "B" : code === SIDE.sell ? "S" : "N";
}
