/**
 * The bars of one instrument for chart adapters: the server's history, continued by trades.
 *
 * What always holds: bars are in order, one for each time. The server's bars replace those that were built here; those
 * from before its restart, which it no longer has, stay. The newest bar of an answer is the *joint*: its prices are
 * right for any overlap of answer and trades, its volume has what came after the answer; once it is over, it is to be
 * requested once more.
 */

/** One bar; `time` in Unix seconds. */
export interface WholeBar {
  time: number;
  open: number;
  high: number;
  low: number;
  close: number;
  volume: number;
}

/** The answer of `/v1/bars/{symbol}`: columns, oldest first, prices and volumes as decimal text or null. */
export interface BarHistory {
  interval_s: number;
  /** From here on the server's bars are complete: since its start, or as far as its memory goes. */
  since: number;
  time: number[];
  open: (string | null)[];
  high: (string | null)[];
  low: (string | null)[];
  close: (string | null)[];
  volume: (string | null)[];
}

/** The bars of a history that have a trade. A volume that the server cannot express is 0. */
export function barsOf(history: BarHistory): WholeBar[] {
  const number = (text: string | null | undefined): number => (text == null ? NaN : Number(text));
  const bars = history.time.map((time, index) => ({
    time,
    open: number(history.open[index]),
    high: number(history.high[index]),
    low: number(history.low[index]),
    close: number(history.close[index]),
    volume: number(history.volume?.[index]) || 0,
  }));
  return bars.filter(({ open }) => !Number.isNaN(open));
}

export class Bars {
  list: WholeBar[] = [];
  /** The time of the joint; NaN where its volume was corrected. */
  #joint = NaN;
  /** The server has restarted here: of bars that began before it has at most a part. */
  #keptUntil = -Infinity;

  constructor(readonly intervalS: number) {}

  get last(): WholeBar | undefined {
    return this.list.at(-1);
  }

  /** Adds a trade; returns the changed bar, or undefined for one before the last bar. */
  add(seconds: number, price: number, size: number): WholeBar | undefined {
    if (!Number.isFinite(price)) return undefined;
    const { last, intervalS } = this;
    const time = Math.floor(seconds / intervalS) * intervalS;
    if (last !== undefined && time < last.time) return undefined;
    const volume = Number.isFinite(size) ? size : 0;
    if (last === undefined || time > last.time) {
      const bar = { time, open: price, high: price, low: price, close: price, volume };
      this.list.push(bar);
      return bar;
    }
    last.high = Math.max(last.high, price);
    last.low = Math.min(last.low, price);
    last.close = price;
    last.volume += volume;
    return last;
  }

  /** True if the joint is over: its volume may lack some trades, or have them twice. {@link correct} is to be called. */
  get isDue(): boolean {
    return this.last !== undefined && this.#joint < this.last.time;
  }

  /** The bars from the joint up to the last one. */
  get due(): number {
    return (this.last!.time - this.#joint) / this.intervalS;
  }

  /** Takes bars of the server that are over: the joint, and those after it. The last one was built of all its trades. */
  correct(bars: readonly WholeBar[]): void {
    const whole = new Map(bars.filter(({ time }) => time >= this.#keptUntil).map((bar) => [bar.time, bar]));
    this.list = this.list.map((bar) => whole.get(bar.time) ?? bar);
    this.#joint = NaN;
  }

  /**
   * Takes the newest bars of the server. `isRestarted`: since those that are here were built, the server has begun anew at
   * `since`, so that it has only a part of the bar in which it did.
   */
  join(bars: readonly WholeBar[], since: number, isRestarted: boolean): void {
    const [first, newest] = [bars[0], bars.at(-1)];
    if (isRestarted) this.#keptUntil = since;
    this.#joint = newest !== undefined && newest.time >= this.#keptUntil ? newest.time : NaN;
    if (first === undefined || newest === undefined) return;
    const own = new Map(this.list.map((bar) => [bar.time, bar]));
    const joined = bars.map((bar) => {
      const former = own.get(bar.time);
      const isPart = bar.time < this.#keptUntil;
      if (former === undefined || !(isPart || bar === newest)) return bar;
      if (isPart && !isRestarted) return former;
      return {
        ...{ time: bar.time, high: Math.max(former.high, bar.high), low: Math.min(former.low, bar.low) },
        open: isPart ? former.open : bar.open,
        // What was built here has the trades that came while the answer was under way.
        close: bar === newest ? former.close : bar.close,
        volume: bar.volume + (isPart ? former.volume : 0),
      };
    });
    const before = this.list.filter(({ time }) => time < first.time);
    this.list = [...before, ...joined, ...this.list.filter(({ time }) => time > newest.time)];
  }

  /** Takes bars from before the oldest one. */
  prepend(bars: readonly WholeBar[]): void {
    const oldest = this.list[0]?.time ?? Infinity;
    this.list = [...bars.filter(({ time }) => time < oldest), ...this.list];
  }
}
