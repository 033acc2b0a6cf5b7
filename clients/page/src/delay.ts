/** The age of the prices, in words, where the server serves them later. Pure. */

import { countText } from "./format.ts";

/** `Delayed by 15 minutes`; empty where prices are live. The number is exact. */
export function delayText(seconds: number): string {
  return seconds > 0 ? `Delayed by ${ageText(seconds)}` : "";
}

/** The name of the watchlist for screen readers. */
export function gridText(seconds: number): string {
  return seconds > 0 ? `Prices, ${delayText(seconds).toLowerCase()}` : "Live prices";
}

/** What a user reads for `LIVE` and `live`: prices of a delayed market are not. And for `UNKNOWN`: what has happened. */
export function liveText(word: string, seconds: number): string {
  if (word === "UNKNOWN") return "NOT BACK";
  if (seconds === 0) return word;
  return word === "LIVE" ? "DELAYED" : word === "live" ? "delayed" : word;
}

/** `15 min`, for the title. */
export function shortText(seconds: number): string {
  return seconds % 60 === 0 ? `${countText(seconds / 60)} min` : `${countText(seconds)} s`;
}

/** In whole minutes, or else in seconds. */
function ageText(seconds: number): string {
  const [count, unit] = seconds % 60 === 0 ? [seconds / 60, "minute"] : [seconds, "second"];
  return `${countText(count)} ${unit}${count === 1 ? "" : "s"}`;
}
