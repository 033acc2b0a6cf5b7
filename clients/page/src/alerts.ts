/** Price alerts: each says once that a price has reached a bound. Prices are decimal text, compared exactly. Pure. */

export type Side = "above" | "below";

export interface Alert {
  readonly id: string;
  readonly symbol: string;
  readonly side: Side;
  /** Decimal text. */
  readonly price: string;
  /** When it has fired, ms since the Unix epoch, and at which price; 0 and empty before. */
  readonly firedAt: number;
  readonly firedPrice: string;
}

export const ALERTS_MAX = 100;
const DIGITS_MAX = 40;

/**
 * The price that a user has typed, as plain decimal text: `61,837.63` is `61837.63`. `null` for anything else, also for
 * a comma that does not group thousands, which may be meant as the point.
 */
export function priceOf(typed: string): string | null {
  const text = typed.trim().replace("−", "-");
  const match = /^(-?)(\d+|\d{1,3}(?:,\d{3})+)(?:\.(\d+))?$/.exec(text);
  if (match === null) return null;
  const whole = (match[2] ?? "").replaceAll(",", "").replace(/^0+(?=\d)/, "");
  const decimals = match[3] ?? "";
  if (whole.length + decimals.length > DIGITS_MAX) return null;
  return `${match[1] ?? ""}${whole}${decimals === "" ? "" : `.${decimals}`}`;
}

/** Below 0, 0 or above 0, as the first of two decimal texts is less than, equal to or greater than the second. */
export function compareDecimals(one: string, other: string): number {
  const decimals = Math.max(decimalsOf(one), decimalsOf(other));
  const difference = scaled(one, decimals) - scaled(other, decimals);
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
}

function decimalsOf(text: string): number {
  const point = text.indexOf(".");
  return point < 0 ? 0 : text.length - point - 1;
}

function scaled(text: string, decimals: number): bigint {
  return BigInt(text.replace(".", "") + "0".repeat(decimals - decimalsOf(text)));
}

export class Alerts {
  #all: readonly Alert[];
  #lastId = 0;

  constructor(all: readonly Alert[]) {
    this.#all = all;
  }

  /** The waiting ones and those that have fired, the newest first. */
  get all(): readonly Alert[] {
    return this.#all;
  }

  /** The symbols for which alerts wait. */
  get symbols(): ReadonlySet<string> {
    return new Set(this.#all.filter(({ firedAt }) => firedAt === 0).map(({ symbol }) => symbol));
  }

  /** Adds an alert; returns what is wrong, or an empty text. */
  add(symbol: string, side: Side, typed: string, nowMs: number): string {
    const price = priceOf(typed);
    if (symbol === "") return "No instrument is chosen.";
    if (price === null) return `“${typed.trim()}” is not a price: expected a number such as 61837.63.`;
    if (this.#all.length >= ALERTS_MAX) return `There are ${ALERTS_MAX} alerts already: remove one.`;
    const isSame = (alert: Alert): boolean => alert.symbol === symbol && alert.side === side && alert.firedAt === 0;
    if (this.#all.some((alert) => isSame(alert) && compareDecimals(alert.price, price) === 0)) {
      return "There is such an alert already.";
    }
    this.#lastId += 1;
    const id = `${nowMs.toString(36)}-${this.#lastId}`;
    this.#all = [{ id, symbol, side, price, firedAt: 0, firedPrice: "" }, ...this.#all];
    return "";
  }

  remove(id: string): void {
    this.#all = this.#all.filter((alert) => alert.id !== id);
  }

  /** Takes a price; returns the alerts that it reaches, which have then fired and do not again. */
  take(symbol: string, price: string, nowMs: number): Alert[] {
    const fired: Alert[] = [];
    this.#all = this.#all.map((alert) => {
      if (alert.symbol !== symbol || alert.firedAt !== 0 || !reaches(alert, price)) return alert;
      const done = { ...alert, firedAt: nowMs, firedPrice: price };
      fired.push(done);
      return done;
    });
    return fired;
  }
}

function reaches({ side, price: bound }: Alert, price: string): boolean {
  const order = compareDecimals(price, bound);
  return side === "above" ? order >= 0 : order <= 0;
}

/** Whether a stored value is a list of alerts. */
export function isAlerts(value: unknown): value is Alert[] {
  return Array.isArray(value) && value.length <= ALERTS_MAX && value.every(isAlert);
}

function isAlert(value: unknown): value is Alert {
  const { id, symbol, side, price, firedAt, firedPrice } = (value ?? {}) as Partial<Record<keyof Alert, unknown>>;
  const texts = [id, symbol, firedPrice].every((text) => typeof text === "string");
  const hasPrice = typeof price === "string" && priceOf(price) === price;
  return texts && hasPrice && (side === "above" || side === "below") && typeof firedAt === "number";
}
