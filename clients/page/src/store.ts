/**
 * Settings that the page keeps in localStorage between visits: pins, theme, sort, intervals, zone,
 * alerts, lists and more. Where storage is refused (private windows, policies), they last until the page is left.
 */

const PREFIX = "tickcast.";

/** The stored value, or `fallback` if there is none or it does not fit. */
export function recall<T>(name: string, fallback: T, fits: (value: unknown) => value is T): T {
  try {
    const text = localStorage.getItem(PREFIX + name);
    const value: unknown = text === null ? fallback : JSON.parse(text);
    return fits(value) ? value : fallback;
  } catch {
    return fallback;
  }
}

export function remember(name: string, value: unknown): void {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // Storage is full or refused: the setting lasts until the page is left.
  }
}

/** Calls back when another tab of the page has stored a value of this name. */
export function followed(name: string, changed: () => void): void {
  addEventListener("storage", ({ key }) => {
    if (key === PREFIX + name) changed();
  });
}

export function isText(value: unknown): value is string {
  return typeof value === "string";
}

export function isNumber(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value);
}

export function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every(isText);
}

export function isFlag(value: unknown): value is boolean {
  return typeof value === "boolean";
}
