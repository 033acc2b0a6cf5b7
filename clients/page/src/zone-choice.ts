/** The choice of the zone in which times are shown: stored, and offered for the chosen instrument's venue. */

import { write } from "./dom.ts";
import { recall, remember } from "./store.ts";
import { ZONE_CHOICES, type Zone, type ZoneChoice, isZoneChoice, venueZone, zoneOf } from "./zones.ts";

export class ZoneSelect {
  readonly #select: HTMLSelectElement;
  readonly #changed: () => void;
  #choice: ZoneChoice = recall("zone", "local", isZoneChoice);
  #venue = "";

  constructor(select: HTMLSelectElement, changed: () => void) {
    this.#select = select;
    this.#changed = changed;
    select.value = this.#choice;
    select.addEventListener("change", () => this.#choose(select.value));
  }

  /** The venue of the chosen instrument: its zone is offered if it is known. */
  set venue(venue: string) {
    this.#venue = venue;
    const zone = venueZone(venue);
    const option = this.#select.querySelector<HTMLOptionElement>("[value=exchange]");
    if (option === null) return;
    option.disabled = zone === undefined;
    const name = zone?.replace(/^.*\//, "").replaceAll("_", " ");
    write(option, name === undefined ? "Exchange: not known" : `Exchange: ${name}`);
    this.#select.title =
      zone === undefined && this.#choice === "exchange"
        ? `The time zone of ${venue === "" ? "the venue" : venue} is not known: times are in UTC`
        : "Zone of the times";
  }

  /** The zone for an instrument of this venue. */
  zone(venue: string): Zone {
    return zoneOf(this.#choice, venue);
  }

  /** The next zone that is offered. */
  next(): void {
    const offered = ZONE_CHOICES.filter((choice) => choice !== "exchange" || venueZone(this.#venue) !== undefined);
    this.#choose(offered[(offered.indexOf(this.#choice) + 1) % offered.length] ?? "local");
  }

  #choose(value: string): void {
    if (!isZoneChoice(value)) return;
    this.#choice = value;
    this.#select.value = value;
    remember("zone", value);
    this.venue = this.#venue;
    this.#changed();
  }
}
