/**
 * Texts of numbers. Prices and sizes are the client's exact decimal texts, which are only grouped and cut here, never
 * computed; ratios, rates, times and what charts draw may be floats.
 */

import { Zone } from "./zones.ts";

/** Shown where there is no value. */
export const NONE = "–";

/**
 * `61837.6300` as `61,837.63`: thousands grouped, a true minus, and without the last `spare` decimals.
 * `spare` may only cover zeros; see {@link spareZeros}.
 */
export function priceText(exact: string, spare = 0): string {
  const negative = exact.startsWith("-");
  const end = exact.length - spare;
  const point = exact.indexOf(".");
  const whole = exact.slice(negative ? 1 : 0, point < 0 ? end : point);
  const decimals = point < 0 ? "" : exact.slice(point + 1, end);
  const grouped = whole.length > 3 ? whole.replace(/\B(?=(\d{3})+$)/g, ",") : whole;
  return (negative ? "−" : "") + grouped + (decimals === "" ? "" : `.${decimals}`);
}

/**
 * The number of trailing zeros among the decimals of this text, at most `most`. An instrument's decimals are cut by the
 * least number among its prices, so that its digits are aligned.
 */
export function spareZeros(exact: string, most: number): number {
  if (most <= 0 || !exact.includes(".")) return 0;
  let spare = 0;
  while (spare < most && exact.charCodeAt(exact.length - 1 - spare) === 0x30) spare += 1;
  return spare;
}

/** By row: the trailing decimals that are zero in all its numbers so far, so that its digits are aligned. */
export class Digits {
  #spare = new Int8Array(0);

  /** How many of the text's trailing decimals to cut. `first` is the limit for a row's first number. */
  cut(row: number, text: string, first: () => number): number {
    if (row >= this.#spare.length) {
      const grown = new Int8Array(Math.max(256, 2 * row)).fill(-1);
      grown.set(this.#spare);
      this.#spare = grown;
    }
    const before = this.spare(row);
    return (this.#spare[row] = spareZeros(text, before < 0 ? first() : before));
  }

  /** -1 before the first number of a row. */
  spare(row: number): number {
    return this.#spare[row] ?? -1;
  }

  forget(row: number): void {
    if (row < this.#spare.length) this.#spare[row] = -1;
  }
}

/** Trailing decimals that are zero in all multiples of this tick: 2 for a tick of 100 at exponent −4. */
export function spareOfTick(tickSize: number, pxExp: number): number {
  if (pxExp >= 0) return 0;
  if (!(tickSize > 0)) return Math.max(0, -pxExp - 2);
  let spare = 0;
  for (let rest = tickSize; rest % 10 === 0 && spare < -pxExp; rest /= 10) spare += 1;
  return spare;
}

/** An exact text with this many decimals, where the difference is zeros: of a number at former exponents. */
export function withDecimals(exact: string, decimals: number): string {
  if (exact === "") return "";
  const point = exact.indexOf(".");
  const has = point < 0 ? 0 : exact.length - 1 - point;
  if (has < decimals) return exact + (has === 0 ? "." : "") + "0".repeat(decimals - has);
  const spare = spareZeros(exact, has - decimals);
  const cut = exact.slice(0, exact.length - spare);
  return cut.endsWith(".") ? cut.slice(0, -1) : cut;
}

/** Digits that a float has for certain. */
const FLOAT_DIGITS = 15;

/** A float with this many decimals, but not more digits than it has. */
export function floatText(value: number, decimals: number): string {
  // From here a float has no plain digits, and none after the point.
  if (Math.abs(value) >= 1e21) return String(BigInt(value));
  const whole = value === 0 ? 0 : Math.floor(Math.log10(Math.abs(value))) + 1;
  return value.toFixed(Math.max(0, Math.min(decimals, FLOAT_DIGITS - whole)));
}

/** A change in percent with its sign; one that rounds to 0 has no sign. NaN is no value. */
export function percentText(percent: number): string {
  if (!Number.isFinite(percent)) return NONE;
  const digits = Math.abs(percent).toFixed(2);
  return (digits === "0.00" ? "" : percent > 0 ? "+" : "−") + digits + "%";
}

const UNITS = ["", "K", "M", "B", "T"];

/** `1234567` as `1.23M`: three significant digits and a unit. NaN is no value. */
export function compactText(value: number): string {
  if (!Number.isFinite(value)) return NONE;
  // Far beyond the units.
  if (Math.abs(value) >= 1e18) return value.toExponential(2).replace("-", "−").replace("+", "");
  let unit = 0;
  let rest = Math.abs(value);
  // 999.5, so that it is below a thousand after rounding.
  for (; rest >= 999.5 && unit < UNITS.length - 1; unit++) rest /= 1000;
  const decimals = rest >= 99.95 ? 0 : rest >= 9.995 ? 1 : 2;
  const digits = unit === 0 && Number.isInteger(rest) ? String(rest) : rest.toFixed(decimals);
  return (value < 0 ? "−" : "") + digits + (UNITS[unit] ?? "");
}

/**
 * A volume that was summed in floats, as `1.001`: at most `decimals` decimals, beyond which a sum of floats is not
 * exact, without trailing zeros. From 100,000 it is written like {@link compactText}.
 */
export function volumeText(value: number, decimals: number): string {
  if (!(Math.abs(value) < 100_000)) return compactText(value);
  const text = floatText(value, decimals);
  return priceText(text, spareZeros(text, decimals));
}

const grouping = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A count: `1,234,567`. */
export function countText(value: number): string {
  return Number.isFinite(value) ? grouping.format(value) : NONE;
}

/** `3 of 200 instruments`, and how many of the former ones the server does not have again since it has restarted. */
export function instrumentsText(shown: number, known: number, away: number): string {
  const among = shown < known + away ? `${countText(shown)} of ` : "";
  const text = `${among}${countText(known)} ${known === 1 ? "instrument" : "instruments"}`;
  return away === 0 ? text : `${text}, ${countText(away)} not back since the restart`;
}

/** `3 ended, 1 not back`: the instruments that have no prices to watch. */
export function foldText(ended: number, away: number): string {
  const parts = [ended > 0 ? `${countText(ended)} ended` : "", away > 0 ? `${countText(away)} not back` : ""];
  return parts.filter((part) => part !== "").join(", ");
}

/** The interval of a candle: `5s`, `15m`, `1h`, `1d`. */
export function intervalText(seconds: number): string {
  const units = [[86_400, "d"], [3600, "h"], [60, "m"], [1, "s"]] as const;
  const [unit, letter] = units.find(([unit]) => seconds >= unit) ?? units[3];
  return `${seconds / unit}${letter}`;
}

/** What a button says that shows the bars beyond the scale. */
export function beyondText(bars: number): string {
  return bars === 0 ? "" : `${countText(bars)} ${bars === 1 ? "bar leaves" : "bars leave"} the scale: show all`;
}

/** Milliseconds, with one decimal below 10, and in seconds from 10 s. NaN is no value. */
export function millisText(ms: number): string {
  if (!Number.isFinite(ms)) return NONE;
  if (ms >= 10_000) return `${(ms / 1000).toFixed(0)} s`;
  return `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
}

const LOCAL = new Zone(undefined);
const BYTES = ["B", "KB", "MB", "GB", "TB"];

/** Bytes in decimal units: `33.6 MB`. */
export function bytesText(bytes: number): string {
  if (!Number.isFinite(bytes)) return NONE;
  let unit = 0;
  for (; bytes >= 999.95 && unit < BYTES.length - 1; unit++) bytes /= 1000;
  return `${unit === 0 ? bytes.toFixed(0) : bytes.toFixed(1)} ${BYTES[unit] ?? ""}`;
}

/** A span of time in its two largest units: `3 h 12 min`. */
export function spanText(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const [days, hours, minutes] = [
    Math.floor(whole / 86400),
    Math.floor(whole / 3600) % 24,
    Math.floor(whole / 60) % 60,
  ];
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

/** Local time of day: `14:03:09`. */
export function clockText(unixMs: number): string {
  return LOCAL.clock(unixMs);
}

/** The zone of {@link clockText}: `UTC+1`. */
export function localZoneText(unixMs: number): string {
  return LOCAL.label(unixMs);
}
