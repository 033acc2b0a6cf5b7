/**
 * The price range of a chart that a single wrong price does not flatten. Pure.
 *
 * How a price is found to be an outlier: it lies far outside the middle half of the prices in view; few bars have such
 * prices; with them the rest would have less than an eighth of the height; and either the price has returned since, or
 * it is more than ten times away. So a crash, a step or a trend is always shown whole.
 */

export interface Range {
  readonly low: number;
  readonly high: number;
}

/** Distance from the middle half of the prices, in heights of that. */
const FENCE = 8;
/** The rest has at least this part of the height without a cut. */
const FLATTENED = 1 / 8;
/** The most bars beyond one side of a scale that cuts them. */
const RARE = 0.02;
const BARS_MIN = 8;
/** A price that is so many times the usual one away is wrong although it is the newest. */
const FAR = 9;

/**
 * The range for these bars, by their lows and highs, and the newest price. NaN is no value. `null` without values.
 */
export function robustRange(lows: readonly number[], highs: readonly number[], newest: number): Range | null {
  const low = sorted(lows);
  const high = sorted(highs);
  if (low.length === 0 || high.length === 0) return null;
  const whole = { low: low[0] ?? 0, high: high.at(-1) ?? 0 };
  if (low.length < BARS_MIN) return whole;
  const [first, third] = [at(low, 0.25), at(high, 0.75)];
  const reach = FENCE * Math.max(third - first, Number.EPSILON * Math.abs(third));
  const fence = { low: first - reach, high: third + reach };
  const kept = {
    low: low.find((px) => px >= fence.low) ?? whole.low,
    high: high.findLast((px) => px <= fence.high) ?? whole.high,
  };
  const rare = Math.max(1, Math.floor(low.length * RARE));
  const usual = Math.abs(at(low, 0.5));
  const isWrong = (px: number): boolean =>
    (newest >= fence.low && newest <= fence.high) || Math.abs(px - at(low, 0.5)) > FAR * usual;
  const cutLow = whole.low < kept.low && isWrong(whole.low) && count(low, (px) => px < fence.low) <= rare;
  const cutHigh = whole.high > kept.high && isWrong(whole.high) && count(high, (px) => px > fence.high) <= rare;
  const range = { low: cutLow ? kept.low : whole.low, high: cutHigh ? kept.high : whole.high };
  const isFlattened = range.high - range.low < FLATTENED * (whole.high - whole.low);
  return isFlattened ? range : whole;
}

function sorted(values: readonly number[]): number[] {
  return values.filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
}

function at(ascending: readonly number[], share: number): number {
  return ascending[Math.floor((ascending.length - 1) * share)] ?? 0;
}

function count(values: readonly number[], test: (px: number) => boolean): number {
  return values.reduce((sum, px) => sum + (test(px) ? 1 : 0), 0);
}
