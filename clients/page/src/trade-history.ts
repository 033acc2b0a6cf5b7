/**
 * The trades of an instrument from before it was opened: `/v1/trades/{symbol}`, joined with the live ones. Pure.
 *
 * How the join works: trades of one instrument have sequence numbers without gaps within an epoch of the server. The
 * live trades begin before the answer is requested, so the two overlap or touch. Each number is listed once. Where a
 * number is missing nevertheless, the list begins after it, so that it never hides a trade between two others.
 *
 * Trades without a number are of an earlier run of the server, which has stored them. They come before all others.
 */

import type { RecentTrade } from "./recent-trades.ts";

/** The answer: columns, oldest first, prices and sizes as decimal text. */
export interface TradesAnswer {
  readonly sequence: readonly (number | null)[];
  readonly ts_event: readonly (number | null)[];
  readonly ts_recv: readonly number[];
  readonly px: readonly (string | null)[];
  readonly sz: readonly (string | null)[];
  readonly side: readonly (string | null)[];
}

/** A decimal text as a mantissa, what the exact one is above that number, and its exponent. */
export function mantissaOf(text: string | null | undefined): { mantissa: number; rest: number; exp: number } {
  if (text === null || text === undefined || !/^-?\d+(\.\d+)?$/.test(text)) return { mantissa: NaN, rest: 0, exp: 0 };
  const point = text.indexOf(".");
  const exact = BigInt(text.replace(".", ""));
  const mantissa = Number(exact);
  return { mantissa, rest: Number(exact - BigInt(mantissa)), exp: point < 0 ? 0 : point + 1 - text.length };
}

/** The trades of an answer, which are of this epoch of the server. */
export function tradesOf(answer: TradesAnswer, epoch: number): RecentTrade[] {
  return answer.sequence.map((sequence, at) => {
    const [px, sz] = [mantissaOf(answer.px[at]), mantissaOf(answer.sz[at])];
    const side = answer.side[at];
    return {
      // Whole milliseconds: a number holds nanoseconds since 1970 to some hundreds.
      at: Math.round((answer.ts_event[at] || answer.ts_recv[at] || 0) / 1e6),
      px: px.mantissa,
      sz: sz.mantissa,
      pxRest: px.rest,
      szRest: sz.rest,
      pxExp: px.exp,
      szExp: sz.exp,
      side: side === "B" || side === "S" ? side : "N",
      sequence,
      epoch,
    };
  });
}

/** History and live trades, oldest first; see the header of this file. */
export function joined(history: readonly RecentTrade[], live: readonly RecentTrade[], epoch: number): RecentTrade[] {
  const present = live.filter((trade) => trade.epoch === epoch);
  const bySequence = new Map<number, RecentTrade>();
  for (const trade of [...history, ...present]) if (trade.sequence !== null) bySequence.set(trade.sequence, trade);
  const sorted = [...bySequence].sort(([a], [b]) => a - b).map(([, trade]) => trade);
  const numbered = afterHole(sorted);
  const stored = history.some(isStored) ? history : present;
  const trades = numbered.length < sorted.length ? numbered : [...stored.filter(isStored), ...numbered];
  // Before a restart of the server numbers were others. What the history has of that time is not listed twice.
  const oldest = trades[0]?.at ?? Infinity;
  return [...live.filter((trade) => trade.epoch !== epoch && trade.at < oldest), ...trades];
}

/** The newest trades whose numbers follow one another. */
export function afterHole(trades: readonly RecentTrade[]): RecentTrade[] {
  let from = Math.max(0, trades.length - 1);
  while (from > 0 && (trades[from - 1]?.sequence ?? 0) + 1 === trades[from]?.sequence) from -= 1;
  return trades.slice(from);
}

function isStored(trade: RecentTrade): boolean {
  return trade.sequence === null;
}
