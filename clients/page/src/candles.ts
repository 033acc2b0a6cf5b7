/**
 * Candles and bands of one instrument at one interval: history joined with live events. Pure.
 *
 * How the join works: live events are taken from the moment the instrument is opened, before history is requested.
 * A bar that both have is merged, and its prices are right for any overlap: the open is that of history, high and low
 * are the widest, and the close is the later one: of the newest bar in history the live one, of an earlier bar that of
 * history, because live events may have a gap there. Volume would count the overlap twice. So the newest bar in
 * history, the joint, has history's volume plus the trades after the answer; once it is over, the chart requests it
 * again, and {@link Candles.correct} replaces it by the server's bar. Bars before the joint are complete: later trades
 * of them, such as those of a replay, add no volume.
 */

/** One bar. `time` is its start in Unix seconds; prices are floats for drawing, NaN without a trade or quote. */
export interface Bar {
  time: number;
  open: number;
  high: number;
  low: number;
  close: number;
  volume: number;
  /** The newest quote within the bar. */
  bid: number;
  ask: number;
}

/** Decimals that the chart library draws as they are: from 17 on its price axis throws, and it compares by 1e-14. */
const DRAWN_DECIMALS = 8;
/** Digits of a drawn price down to the smallest step: the library adds steps up, without an end if a float loses them. */
const DRAWN_DIGITS = 12;

/**
 * How prices with these decimals, and at most so many digits before the point, are drawn: multiplied by `unit`, in steps
 * of `minMove`.
 */
export function drawnAs(decimals: number, wholeDigits: number): { unit: number; minMove: number } {
  const finest = Math.min(decimals, DRAWN_DIGITS - wholeDigits);
  const drawn = Math.max(0, Math.min(finest, DRAWN_DECIMALS));
  return { unit: 10 ** (finest - drawn), minMove: 10 ** -drawn };
}

/** The digits before the point of the largest price of a bar; negative for a price with zeros after the point. */
export function wholeDigits({ open, high, low, bid, ask }: Bar): number {
  let largest = 0;
  for (const price of [open, high, low, bid, ask]) if (Math.abs(price) > largest) largest = Math.abs(price);
  return largest === 0 ? -Infinity : Math.floor(Math.log10(largest)) + 1;
}

export function emptyBar(time: number): Bar {
  return { time, open: NaN, high: NaN, low: NaN, close: NaN, volume: 0, bid: NaN, ask: NaN };
}

/** The start of the bar of this time. */
export function barStart(unixS: number, intervalS: number): number {
  return Math.floor(unixS / intervalS) * intervalS;
}

/** Bars to keep; a quarter more of them is dropped at once. */
const BARS_MAX = 6000;
/** The most bars with older ones, which a user has scrolled to: they are then kept. */
const LOADED_MAX = 30_000;

export class Candles {
  readonly intervalS: number;
  /** Oldest first, with strictly rising times. */
  bars: Bar[] = [];
  /** Bars that start earlier have their complete volume from history. */
  #completeBefore = -Infinity;
  /** Bars to keep. */
  #kept = BARS_MAX;

  constructor(intervalS: number) {
    this.intervalS = intervalS;
  }

  get newest(): Bar | undefined {
    return this.bars.at(-1);
  }

  /** Whether no older bars can be added. */
  get isFull(): boolean {
    return this.bars.length >= LOADED_MAX;
  }

  /** Adds older bars of the server, and returns how many they were. They are complete. */
  prepend(older: readonly Bar[]): number {
    const first = this.bars[0]?.time ?? Infinity;
    const added = older.filter(({ time }) => time < first);
    this.bars = [...added, ...this.bars];
    this.#kept = Math.max(this.#kept, this.bars.length);
    return added.length;
  }

  /** Adds a live trade; returns its bar, which may be older than the newest. */
  trade(unixS: number, px: number, sz: number): Bar {
    const bar = this.#at(barStart(unixS, this.intervalS));
    if (Number.isNaN(bar.open)) bar.open = bar.high = bar.low = px;
    bar.high = Math.max(bar.high, px);
    bar.low = Math.min(bar.low, px);
    bar.close = px;
    if (!(bar.time < this.#completeBefore)) bar.volume += sz;
    return bar;
  }

  /** Adds a live quote; returns its bar. A one-sided quote leaves the other side of the bar. */
  quote(unixS: number, bid: number, ask: number): Bar {
    const bar = this.#at(barStart(unixS, this.intervalS));
    if (!Number.isNaN(bid)) bar.bid = bid;
    if (!Number.isNaN(ask)) bar.ask = ask;
    return bar;
  }

  /** Joins history with the live bars; see the header of this file. */
  join(history: readonly Bar[]): void {
    const known = new Map(history.map((bar) => [bar.time, { ...bar }]));
    const [newest, joint] = [history.at(-1)?.time ?? -Infinity, this.#completeBefore];
    for (const live of this.bars) {
      const bar = known.get(live.time);
      const both = bar === undefined ? live : merged(bar, live, bar.time < newest);
      // In the former joint the live volume may have counted trades twice: history's is used.
      if (bar !== undefined && bar.time === joint && joint < newest) both.volume = bar.volume;
      known.set(live.time, both);
    }
    this.bars = [...known.values()].sort((a, b) => a.time - b.time).slice(-this.#kept);
    this.#completeBefore = newest;
  }

  /** Replaces bars by the server's, except for the newest bar, which is not over yet. */
  correct(history: readonly Bar[]): void {
    const newest = this.newest?.time ?? Infinity;
    const known = new Map(this.bars.map((bar) => [bar.time, bar]));
    for (const bar of history) if (bar.time < newest) known.set(bar.time, { ...bar });
    this.bars = [...known.values()].sort((a, b) => a.time - b.time);
    this.#completeBefore = Math.max(this.#completeBefore, Math.min(newest, history.at(-1)?.time ?? -Infinity));
  }

  #at(time: number): Bar {
    const newest = this.newest;
    if (newest !== undefined && newest.time === time) return newest;
    if (newest === undefined || time > newest.time) {
      const bar = emptyBar(time);
      this.bars.push(bar);
      if (this.bars.length > 1.25 * this.#kept) this.bars = this.bars.slice(-this.#kept);
      return bar;
    }
    return this.#earlier(time);
  }

  /** A bar before the newest. Rare and near the end, because records of one instrument are in order. */
  #earlier(time: number): Bar {
    let at = this.bars.length - 1;
    while (at >= 0 && (this.bars[at]?.time ?? 0) > time) at -= 1;
    const found = this.bars[at];
    if (found !== undefined && found.time === time) return found;
    const bar = emptyBar(time);
    this.bars.splice(at + 1, 0, bar);
    return bar;
  }
}

/** A range of the time axis, as indexes of bars from the oldest; it may extend beyond the first and last bar. */
export interface BarRange {
  readonly from: number;
  readonly to: number;
}

/** The range with the same bars after the oldest were dropped; if those were in view, with the first that are left. */
export function rangeAfterDrop({ from, to }: BarRange, dropped: number): BarRange {
  const moved = from >= 0 ? Math.min(dropped, from) : 0;
  return { from: from - moved, to: to - moved };
}

/** Merges the bars of one time; of a bar that is over, history has the later close. */
function merged(history: Bar, live: Bar, isOver: boolean): Bar {
  const wide = (most: (a: number, b: number) => number, a: number, b: number): number =>
    Number.isNaN(a) ? b : Number.isNaN(b) ? a : most(a, b);
  const either = (first: number, second: number): number => (Number.isNaN(first) ? second : first);
  const [later, earlier] = isOver ? [history, live] : [live, history];
  return {
    time: history.time,
    open: either(history.open, live.open),
    high: wide(Math.max, history.high, live.high),
    low: wide(Math.min, history.low, live.low),
    close: either(later.close, earlier.close),
    volume: Math.max(history.volume, live.volume),
    bid: either(later.bid, earlier.bid),
    ask: either(later.ask, earlier.ask),
  };
}

/** The answer of `/v1/bars/{symbol}`: columns, oldest first, prices as decimal text. */
export interface BarsAnswer {
  readonly time: readonly number[];
  readonly open: readonly (string | null)[];
  readonly high: readonly (string | null)[];
  readonly low: readonly (string | null)[];
  readonly close: readonly (string | null)[];
  readonly volume: readonly (string | null)[];
  readonly bid_px: readonly (string | null)[];
  readonly ask_px: readonly (string | null)[];
}

/** The bars of an answer. Its decimal text becomes floats, for drawing only. */
export function barsOf(answer: BarsAnswer): Bar[] {
  const at = (column: readonly (string | null)[], row: number): number => {
    const text = column[row];
    return text === null || text === undefined ? NaN : Number(text);
  };
  return answer.time.map((time, row) => ({
    time,
    open: at(answer.open, row),
    high: at(answer.high, row),
    low: at(answer.low, row),
    close: at(answer.close, row),
    volume: at(answer.volume, row) || 0,
    bid: at(answer.bid_px, row),
    ask: at(answer.ask_px, row),
  }));
}
