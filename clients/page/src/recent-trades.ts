/**
 * The newest trades of all instruments in one ring buffer of columns, so that an instrument's list is filled when it is
 * opened. Each has the exponents of its time. Adding a trade costs eleven stores; reading an instrument's trades scans the
 * ring once, some 16,000 entries.
 */

import { SIDE, type Instruments, type TradeList } from "tickcast";

const TRADES_MAX = 16_384;

export interface RecentTrade {
  /** Venue time, else the time of receipt by the server: ms since the Unix epoch. */
  readonly at: number;
  /** Mantissas, what the exact ones are above these numbers, and their exponents. */
  readonly px: number;
  readonly sz: number;
  readonly pxRest: number;
  readonly szRest: number;
  readonly pxExp: number;
  readonly szExp: number;
  /** The aggressor's side. */
  readonly side: "B" | "S" | "N";
  /** Its number among the trades of the instrument, in an epoch of the server; null for one of an earlier run. */
  readonly sequence: number | null;
  readonly epoch: number;
}

export class RecentTrades {
  readonly #row = new Int32Array(TRADES_MAX).fill(-1);
  readonly #at = new Float64Array(TRADES_MAX);
  readonly #px = new Float64Array(TRADES_MAX);
  readonly #sz = new Float64Array(TRADES_MAX);
  readonly #pxRest = new Int16Array(TRADES_MAX);
  readonly #szRest = new Int16Array(TRADES_MAX);
  readonly #pxExp = new Int8Array(TRADES_MAX);
  readonly #szExp = new Int8Array(TRADES_MAX);
  readonly #side = new Uint8Array(TRADES_MAX);
  readonly #sequence = new Float64Array(TRADES_MAX);
  readonly #epoch = new Float64Array(TRADES_MAX);
  #head = 0;

  take(trades: TradeList, { pxExp, szExp }: Instruments, epoch: number): void {
    for (let at = 0; at < trades.length; at++) {
      const to = this.#head;
      const row = trades.row[at] ?? -1;
      this.#row[to] = row;
      this.#at[to] = trades.eventMs[at] || trades.recvMs[at] || 0;
      this.#px[to] = trades.px[at] ?? NaN;
      this.#sz[to] = trades.sz[at] ?? NaN;
      this.#pxRest[to] = trades.pxRest[at] ?? 0;
      this.#szRest[to] = trades.szRest[at] ?? 0;
      this.#pxExp[to] = pxExp[row] ?? 0;
      this.#szExp[to] = szExp[row] ?? 0;
      this.#side[to] = trades.side[at] ?? SIDE.unknown;
      this.#sequence[to] = trades.sequence[at] ?? 0;
      this.#epoch[to] = epoch;
      this.#head = (to + 1) % TRADES_MAX;
    }
  }

  /** The newest trades of a row, at most `most`, oldest first. */
  of(row: number, most: number): RecentTrade[] {
    const found: RecentTrade[] = [];
    for (let back = 1; back <= TRADES_MAX && found.length < most; back++) {
      const from = (this.#head - back + TRADES_MAX) % TRADES_MAX;
      if (this.#row[from] === row) found.push(this.#trade(from));
    }
    return found.reverse();
  }

  #trade(from: number): RecentTrade {
    return {
      at: this.#at[from] ?? 0,
      px: this.#px[from] ?? NaN,
      sz: this.#sz[from] ?? NaN,
      pxRest: this.#pxRest[from] ?? 0,
      szRest: this.#szRest[from] ?? 0,
      pxExp: this.#pxExp[from] ?? 0,
      szExp: this.#szExp[from] ?? 0,
      side: sideOf(this.#side[from]),
      sequence: this.#sequence[from] ?? 0,
      epoch: this.#epoch[from] ?? 0,
    };
  }
}

/** The aggressor's side as its letter in the protocol. */
export function sideOf(code: number | undefined): RecentTrade["side"] {
  return code === SIDE.buy ? "B" : code === SIDE.sell ? "S" : "N";
}
