/** Mantissas to decimal text, exactly. */

import { verify, type Rule } from "./check";

const WHOLE: Rule = [(value) => typeof value === "bigint" || Number.isInteger(value), "a whole number", true];

/** A mantissa of a column and its rest, exactly: a BigInt where a number would round. */
export function exactOf(mantissa: number, rest: number): number | bigint {
  return rest ? BigInt(mantissa) + BigInt(rest) : mantissa;
}

/**
 * `mantissa × 10^exponent` with all its decimals: `(6183763, -2)` is `61837.63`. `""` for NaN and null. `rest` is
 * added to the mantissa: of a mantissa beyond 2^53, what the exact one is above the number.
 */
export function decimal(mantissa: number | bigint | null, exponent: number, rest = 0): string {
  if (mantissa == null || mantissa !== mantissa) return "";
  verify("mantissa", mantissa, WHOLE);
  verify("exponent", exponent, WHOLE);
  // A sum of many mantissas may be beyond 10^21, from where a number has no plain digits.
  const whole = rest || mantissa >= 1e21 || mantissa <= -1e21 ? BigInt(mantissa) + BigInt(rest) : mantissa;
  const digits = `${whole < 0 ? -whole : whole}`;
  const sign = whole < 0 ? "-" : "";
  if (exponent >= 0) return sign + digits + "0".repeat(whole ? exponent : 0);
  const padded = digits.padStart(1 - exponent, "0");
  return `${sign}${padded.slice(0, exponent)}.${padded.slice(exponent)}`;
}

/** The nearest number to `mantissa × 10^exponent`: one rounding where the power of ten is exact, up to 10^22. */
export function nearest(mantissa: number | bigint, exponent: number): number {
  return exponent < 0 ? Number(mantissa) / 10 ** -exponent : Number(mantissa) * 10 ** exponent;
}
