/**
 * A second chart, of another instrument or interval, beside the first one or below it. It is a copy of the first one's
 * elements, and exists from when it is first opened; what it shows is stored.
 */

import type { Frame } from "tickcast";
import { Chart } from "./chart.ts";
import { attribute, make, part } from "./dom.ts";
import type { Market } from "./market.ts";
import { searchKey } from "./order.ts";
import { isText, recall, remember } from "./store.ts";
import type { Zone } from "./zones.ts";

const STORED = "second-chart";
/** Symbols that the field offers. */
const OFFERED_MAX = 20;

export class SecondChart {
  readonly #first: HTMLElement;
  readonly #market: Market;
  readonly #zoneOf: (venue: string) => Zone;
  /** The instrument; empty while the chart is closed. */
  #symbol = recall(STORED, "", isText);
  #row = -1;
  #chart: Chart | null = null;
  #root: HTMLElement | null = null;
  #field: HTMLInputElement | null = null;

  /** `first` is the panel of the first chart as the markup has it: nothing is drawn in it yet. */
  constructor(first: HTMLElement, market: Market, zoneOf: (venue: string) => Zone) {
    this.#first = first;
    this.#market = market;
    this.#zoneOf = zoneOf;
    this.#root = this.#copy();
  }

  /** Opens the chart that was open at the last visit. */
  start(): void {
    if (this.#symbol !== "") this.#open();
  }

  get isOpen(): boolean {
    return this.#symbol !== "";
  }

  /** Opens the chart of an instrument, or closes it. */
  toggle(symbol: string): void {
    if (this.isOpen) return this.#close();
    if (symbol === "") return;
    this.#symbol = symbol;
    remember(STORED, symbol);
    this.#open();
    this.#field?.focus();
    this.#field?.select();
  }

  take(frame: Frame): void {
    this.#chart?.take(frame);
  }

  draw(): void {
    this.#chart?.draw();
  }

  restyle(): void {
    this.#chart?.restyle();
  }

  reload(): void {
    this.#chart?.reload();
  }

  rescaled(row: number): void {
    if (row === this.#row) this.#chart?.rescaled();
  }

  /** The server has defined an instrument. */
  defined(row: number): void {
    if (this.#row < 0) this.settle();
    this.#chart?.defined(row);
  }

  /** Instruments were defined or released: finds the row of the symbol. */
  settle(): void {
    const row = this.isOpen ? this.#market.client.instruments.row(this.#symbol) : -1;
    if (row === this.#row) return;
    this.#row = row;
    this.renewZone();
    this.#chart?.choose(row);
  }

  /** Another zone is chosen. */
  renewZone(): void {
    const venue = this.#row < 0 ? "" : this.#market.client.instruments.venue(this.#row);
    if (this.#chart !== null) this.#chart.zone = this.#zoneOf(venue);
  }

  #open(): void {
    const root = this.#root;
    if (root === null) return;
    if (this.#chart === null) {
      this.#first.after(root);
      this.#chart = new Chart(root, this.#market, "-2");
    }
    root.hidden = false;
    if (this.#field !== null) this.#field.value = this.#symbol;
    this.settle();
  }

  #close(): void {
    this.#symbol = "";
    remember(STORED, "");
    if (this.#root !== null) this.#root.hidden = true;
    this.settle();
    part(this.#first, "[data-action=menu]").focus();
  }

  /** The panel of the first chart with a field for the instrument and a button to close. */
  #copy(): HTMLElement {
    const root = this.#first.cloneNode(true) as HTMLElement;
    root.hidden = true;
    root.dataset["panel"] = "second";
    attribute(root, "aria-label", "Second chart");
    part(root, "[data-action=second]").remove();
    const offered = make("datalist");
    offered.id = "second-symbols";
    const input = make("input", "", "instrument");
    input.dataset["field"] = "second-symbol";
    attribute(input, "list", offered.id);
    attribute(input, "aria-label", "Instrument of the second chart");
    input.autocomplete = "off";
    input.spellcheck = false;
    input.addEventListener("input", () => this.#offer(offered, input.value));
    input.addEventListener("change", () => this.#choose(input.value));
    const close = make("button", "✕", "icon");
    close.type = "button";
    close.dataset["action"] = "close-second";
    attribute(close, "aria-label", "Close the second chart");
    close.addEventListener("click", () => this.#close());
    const bar = part(root, ".bar");
    bar.prepend(input, offered);
    bar.append(close);
    this.#field = input;
    return root;
  }

  /** Symbols that match what is typed; the first of them is chosen where none is equal. */
  #matches(typed: string): string[] {
    const key = searchKey(typed);
    const found: string[] = [];
    for (let row = 0; row < this.#market.rows && found.length < OFFERED_MAX; row++) {
      const symbol = this.#market.symbol(row);
      if (symbol === typed) return [symbol];
      if (symbol !== "" && searchKey(symbol).includes(key)) found.push(symbol);
    }
    return found;
  }

  #offer(offered: HTMLElement, typed: string): void {
    offered.replaceChildren(...this.#matches(typed).map((symbol) => new Option(symbol)));
  }

  #choose(typed: string): void {
    const symbol = this.#market.client.instruments.row(typed) >= 0 ? typed : (this.#matches(typed)[0] ?? this.#symbol);
    this.#symbol = symbol;
    remember(STORED, symbol);
    if (this.#field !== null) this.#field.value = symbol;
    this.settle();
  }
}
