/**
 * The times of a chart in the chosen zone. The library places marks at full hours and days of UTC: bars are therefore
 * drawn moved by the zone's offset at the newest bar, and each text is made from the true time.
 */

import { TickMarkType, type Time, type UTCTimestamp } from "lightweight-charts";
import { UTC, type Zone } from "./zones.ts";

const DAY_S = 86_400;

export class ChartTimes {
  #zone = UTC;
  #intervalS = 1;
  #shiftS = 0;
  #newest = Date.now() / 1000;

  /** Bars of a day begin at midnight in UTC, and would be of two days in another zone. */
  get #shown(): Zone {
    return this.#intervalS >= DAY_S ? UTC : this.#zone;
  }

  set zone(zone: Zone) {
    this.#zone = zone;
  }

  set intervalS(intervalS: number) {
    this.#intervalS = intervalS;
  }

  /** All bars are set again: from here on they are drawn by the offset at this time. */
  align(newest: number | undefined): void {
    this.#newest = newest ?? Date.now() / 1000;
    this.#shiftS = this.#shown.offsetMs(this.#newest * 1000) / 1000;
  }

  /** Where the library draws a time. */
  drawn(unixS: number): UTCTimestamp {
    return (unixS + this.#shiftS) as UTCTimestamp;
  }

  /** The time that is drawn there. */
  real(time: Time): number {
    return Number(time) - this.#shiftS;
  }

  /** `UTC+1`, for the corner of the axes. */
  get label(): string {
    return this.#shown.label(this.#newest * 1000);
  }

  /** A text of the time axis. */
  readonly tickMark = (time: Time, type: TickMarkType): string => {
    const [zone, at] = [this.#shown, this.real(time) * 1000];
    if (type === TickMarkType.TimeWithSeconds) return zone.clock(at);
    if (type === TickMarkType.Time) return zone.clock(at).slice(0, 5);
    return type === TickMarkType.DayOfMonth ? zone.day(at) : zone.month(at);
  };

  /** The text of the crosshair: day, time of day and zone. */
  readonly crosshair = (time: Time): string => this.text(this.real(time));

  /** `1 Dec 2026 14:32:16 UTC+1`. */
  text(unixS: number): string {
    const [zone, at] = [this.#shown, unixS * 1000];
    const clock = this.#intervalS >= DAY_S ? "" : zone.clock(at).slice(0, this.#intervalS < 60 ? 8 : 5);
    return [zone.day(at, true), clock, zone.label(at)].filter((part) => part !== "").join(" ");
  }
}
