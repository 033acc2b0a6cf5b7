/**
 * Candles and bands of one instrument at one interval: history and live events joined without a seam. Pure.
 *
 * How the join works: everything live is taken from the moment the instrument is opened, before history is asked for.
 * Prices of a bar that history and live both know are merged, which is right whatever the overlap: the open is
 * history's, high and low are the widest, the close is the latest: live's in the newest bar of history, and history's
 * in a bar that is over, where live may have a hole. Only volume would count the overlap twice, so for the bar in which
 * the join falls it is history's plus what came after the answer; and once that bar is over, the chart asks for it
 * again and {@link Candles.correct} puts the server's own figures in place. Bars before that one are whole: trades of
 * theirs that come after, such as those replayed when a connection is back, bring no volume.
 */

/** One bar. Times are Unix seconds of its start; prices are floats for drawing; NaN where it has no trade or quote. */
export interface Bar {
  time: number;
  open: number;
  high: number;
  low: number;
  close: number;
  volume: number;
  /** Newest quote within the bar. */
  bid: number;
  ask: number;
}

export function emptyBar(time: number): Bar {
  return { time, open: NaN, high: NaN, low: NaN, close: NaN, volume: 0, bid: NaN, ask: NaN };
}

/** The start of the bar that holds this moment. */
export function barStart(unixS: number, intervalS: number): number {
  return Math.floor(unixS / intervalS) * intervalS;
}

/** Bars kept: beyond, the oldest are dropped in one go. */
const BARS_MAX = 6000;

export class Candles {
  readonly intervalS: number;
  /** Oldest first, times strictly rising. */
  bars: Bar[] = [];
  /** Bars that start before have their whole volume from history. */
  #wholeBefore = -Infinity;

  constructor(intervalS: number) {
    this.intervalS = intervalS;
  }

  get newest(): Bar | undefined {
    return this.bars.at(-1);
  }

  /** A live trade. Returns the bar it fell into; an older bar than the newest is found and changed in place. */
  trade(unixS: number, px: number, sz: number): Bar {
    const bar = this.#at(barStart(unixS, this.intervalS));
    if (Number.isNaN(bar.open)) bar.open = bar.high = bar.low = px;
    bar.high = Math.max(bar.high, px);
    bar.low = Math.min(bar.low, px);
    bar.close = px;
    if (!(bar.time < this.#wholeBefore)) bar.volume += sz;
    return bar;
  }

  /** A live quote. A one-sided quote keeps the other side of the bar as it was. */
  quote(unixS: number, bid: number, ask: number): Bar {
    const bar = this.#at(barStart(unixS, this.intervalS));
    if (!Number.isNaN(bid)) bar.bid = bid;
    if (!Number.isNaN(ask)) bar.ask = ask;
    return bar;
  }

  /** Puts history before and under what came live since it was asked for; see the head of this file. */
  join(history: readonly Bar[]): void {
    const known = new Map(history.map((bar) => [bar.time, { ...bar }]));
    const [newest, joint] = [history.at(-1)?.time ?? -Infinity, this.#wholeBefore];
    for (const live of this.bars) {
      const bar = known.get(live.time);
      const both = bar === undefined ? live : merged(bar, live, bar.time < newest);
      // Where the join before this fell, live may have counted twice, and is not asked.
      if (bar !== undefined && bar.time === joint && joint < newest) both.volume = bar.volume;
      known.set(live.time, both);
    }
    this.bars = [...known.values()].sort((a, b) => a.time - b.time).slice(-BARS_MAX);
    this.#wholeBefore = newest;
  }

  /** Puts the server's bars in place of those at their times, but for the newest, which is still under way. */
  correct(history: readonly Bar[]): void {
    const newest = this.newest?.time ?? Infinity;
    const known = new Map(this.bars.map((bar) => [bar.time, bar]));
    for (const bar of history) if (bar.time < newest) known.set(bar.time, { ...bar });
    this.bars = [...known.values()].sort((a, b) => a.time - b.time);
    this.#wholeBefore = Math.max(this.#wholeBefore, Math.min(newest, history.at(-1)?.time ?? -Infinity));
  }

  #at(time: number): Bar {
    const newest = this.newest;
    if (newest !== undefined && newest.time === time) return newest;
    if (newest === undefined || time > newest.time) {
      const bar = emptyBar(time);
      this.bars.push(bar);
      if (this.bars.length > BARS_MAX + BARS_MAX / 4) this.bars = this.bars.slice(-BARS_MAX);
      return bar;
    }
    return this.#earlier(time);
  }

  /** A bar before the newest: records of one instrument are in order, so this is rare, and near the end. */
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

/** A part of the time axis: places of bars counted from the oldest, with room before the first and after the last. */
export interface BarRange {
  readonly from: number;
  readonly to: number;
}

/** The same bars in view after so many of the oldest are gone; where those were in view, the first that are left. */
export function rangeAfterDrop({ from, to }: BarRange, dropped: number): BarRange {
  const moved = from >= 0 ? Math.min(dropped, from) : 0;
  return { from: from - moved, to: to - moved };
}

/** One bar of what history and live know of the same time; where it is over, history's end of it is the later. */
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

/** The answer of `/v1/bars/{symbol}`: columns, oldest first, prices as decimal texts. */
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

/** Columns into bars. A chart is drawn in floats: here, and only for drawing, decimal texts become such. */
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
