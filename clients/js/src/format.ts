/** Mantissas to decimal text, exactly. */

/**
 * `mantissa × 10^exponent` with all its decimals: `(6183763, -2)` is `61837.63`. `""` for NaN and null, `∞` for
 * Infinity.
 */
export function decimal(mantissa: number | bigint | null, exponent: number): string {
  if (mantissa === null || mantissa !== mantissa) return "";
  // Beyond 2^53: client.exact has the digits.
  if (mantissa === Infinity || mantissa === -Infinity) return mantissa < 0 ? "-∞" : "∞";
  const digits = `${mantissa < 0 ? -mantissa : mantissa}`;
  const sign = mantissa < 0 ? "-" : "";
  if (exponent >= 0) return sign + digits + "0".repeat(mantissa ? exponent : 0);
  const padded = digits.padStart(1 - exponent, "0");
  return `${sign}${padded.slice(0, exponent)}.${padded.slice(exponent)}`;
}

/** The nearest number to `mantissa × 10^exponent`: one rounding where the power of ten is exact, up to 10^22. */
export function nearest(mantissa: number, exponent: number): number {
  return exponent < 0 ? mantissa / 10 ** -exponent : mantissa * 10 ** exponent;
}
