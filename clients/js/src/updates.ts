/** Changes as objects of their own, for callbacks and loops. Their text is made by getters. */

import { REST } from "./columns";
import { decimal } from "./format";
import type { Mirror } from "./mirror";
import { SIDE, type QuoteUpdate, type TickerUpdate, type TradeUpdate } from "./types";
import { CHANNELS } from "./wire";

/** By channel from 1: the names of text properties, with the mantissa of each. */
const TEXTS: readonly Record<string, string>[] = [
  {},
  { bid: "bidPx", bidSize: "bidSz", ask: "askPx", askSize: "askSz" },
  { price: "px", size: "sz", id: "tradeId" },
  {
    ...{ last: "lastPx", open: "openPx", high: "highPx", low: "lowPx" },
    ...{ volumeText: "volume", turnoverText: "turnover" },
  },
];

const SIDES: Record<number, string | undefined> = { [SIDE.buy]: "buy", [SIDE.sell]: "sell" };

/** The newest value of a row, or the trade at an index of the last batch, as an update. Channel from 1. */
export function updateOf(mirror: Mirror, channel: number, index: number): QuoteUpdate | TradeUpdate | TickerUpdate {
  const from = channel === 2 ? mirror.trades : mirror.columns[channel];
  const row = channel === 2 ? from.row[index] : index;
  const { instruments } = mirror;
  const own: any = { inexact: false };
  for (const field in from) {
    const value = from[field][index];
    if (field.endsWith(REST)) own.inexact ||= value !== 0;
    else if (field !== "side") own[field] = value;
  }
  own.channel = CHANNELS[channel - 1];
  own.symbol = instruments.symbol(row);
  if (channel === 2) {
    own.side = SIDES[from.side[index]] ?? "unknown";
  }
  for (const [name, field] of Object.entries(TEXTS[channel])) {
    const exponent = field === "tradeId" ? 0 : (/sz|volume/i.test(field) ? instruments.szExp : instruments.pxExp)[row];
    const rest = from[field + REST][index];
    Object.defineProperty(own, name, { enumerable: true, get: () => decimal(own[field], exponent, rest) });
  }
  return own;
}
