/** Changes as objects of their own, for callbacks and loops. Text is made where it is asked for. */

import { FIELDS, STAMPS } from "./columns";
import { decimal } from "./format";
import type { Mirror } from "./mirror";
import { SIDE, type QuoteUpdate, type TickerUpdate, type TradeUpdate } from "./types";
import { CHANNELS } from "./wire";

/** By channel from 1: the names under which updates have text, and of which mantissa it is. */
const TEXTS: readonly Record<string, string>[] = [
  {},
  { bid: "bidPx", bidSize: "bidSz", ask: "askPx", askSize: "askSz" },
  { price: "px", size: "sz" },
  {
    ...{ last: "lastPx", open: "openPx", high: "highPx", low: "lowPx" },
    ...{ volumeText: "volume", turnoverText: "turnover" },
  },
];

/** What is known of a value beside its fields: exponents when it came, and exact values of what is beyond 2^53. */
interface Hidden {
  pxExp: number;
  szExp: number;
  wide: Record<string, bigint | null>;
}
const hidden = new WeakMap<object, Hidden>();

/** Objects that updates of each channel inherit their text from. */
const prototypes = TEXTS.map((texts) => {
  const prototype = {};
  for (const [name, field] of Object.entries(texts)) {
    const isSize = /sz|volume/i.test(field);
    Object.defineProperty(prototype, name, {
      get(this: Record<string, number>): string {
        const { pxExp, szExp, wide } = hidden.get(this)!;
        return decimal(wide[field] ?? this[field], isSize ? szExp : pxExp);
      },
    });
  }
  return prototype;
});

/** The newest value of a row, or the trade at an index of the last batch, as an update. Channel from 1. */
export function updateOf(mirror: Mirror, channel: number, index: number): QuoteUpdate | TradeUpdate | TickerUpdate {
  const from = channel === 2 ? mirror.trades : mirror.columns[channel];
  const row = channel === 2 ? from.row[index] : index;
  const { instruments } = mirror;
  const own: any = Object.create(prototypes[channel]);
  const wide: Hidden["wide"] = {};
  for (const field of [...STAMPS, ...FIELDS[channel]]) {
    const value = (own[field] = from[field][index]);
    if (value === Infinity || value === -Infinity)
      wide[field] = mirror.exact(channel, row, field, from.sequence[index]);
  }
  own.channel = CHANNELS[channel - 1];
  own.row = row;
  own.symbol = instruments.symbol(row);
  if (channel === 2) {
    own.side = from.side[index] === SIDE.buy ? "buy" : from.side[index] === SIDE.sell ? "sell" : "unknown";
  }
  hidden.set(own, { pxExp: instruments.pxExp[row], szExp: instruments.szExp[row], wide });
  return own;
}
