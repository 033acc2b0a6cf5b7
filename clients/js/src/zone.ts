/** Times of a chart in a time zone, by the platform's Intl. */

import type { Rule } from "./check";

/** `UTC`, `local`, or a name that the platform knows. */
export const zoneRule: Rule = [
  (zone) => {
    try {
      return typeof zone === "string" && new Intl.DateTimeFormat(undefined, { timeZone: nameOf(zone) });
    } catch {
      return false;
    }
  },
  'a time zone, as "Europe/Zurich", "local" or "UTC"',
];

/** The options of a chart, which then shows Unix seconds in this time zone. */
export function zoneFormats(zone: string): {
  localization: { timeFormatter: (time: any) => string };
  timeScale: { tickMarkFormatter: (time: any, kind: number, locale: string) => string };
} {
  const timeZone = nameOf(zone);
  const text = (time: number, locale: string | undefined, fields: Intl.DateTimeFormatOptions): string =>
    new Intl.DateTimeFormat(locale, { timeZone, hourCycle: "h23", ...fields }).format(time * 1000);
  return {
    localization: { timeFormatter: (time) => text(time, undefined, FULL) },
    timeScale: { tickMarkFormatter: (time, kind, locale) => text(time, locale, TICKS[kind] ?? FULL) },
  };
}

const CLOCK: Intl.DateTimeFormatOptions = { hour: "2-digit", minute: "2-digit" };
const SECONDS: Intl.DateTimeFormatOptions = { ...CLOCK, second: "2-digit" };
const FULL: Intl.DateTimeFormatOptions = { year: "numeric", month: "short", day: "numeric", ...SECONDS };

/** By the library's kind of a mark: year, month, day, time, time with seconds. */
const TICKS: readonly Intl.DateTimeFormatOptions[] = [
  { year: "numeric" },
  { month: "short" },
  { day: "numeric", month: "short" },
  CLOCK,
  SECONDS,
];

/** The platform's own zone is the one without a name. */
function nameOf(zone: string): string | undefined {
  return zone === "local" ? undefined : zone;
}
