/**
 * The choice of a list above the watchlist, and the dialog in which lists are managed. A list that an address brings is
 * shown until the user keeps or leaves it; only kept ones are stored.
 */

import { attribute, field, make, part, write } from "./dom.ts";
import { type List, Lists, isLists, listText, parseList } from "./lists.ts";
import { followed, isText, recall, remember } from "./store.ts";

export interface ListHandlers {
  /** The watchlist is to show these symbols, or all for `null`. */
  shown(symbols: ReadonlySet<string> | null): void;
  /** An address that brings the list. */
  linkTo(list: string): string;
  /** The address does not name the shared list any more. */
  left(): void;
  problem(text: string): void;
}

export class ListPanel {
  readonly #dialog: HTMLDialogElement;
  readonly #bar: HTMLElement;
  readonly #select: HTMLSelectElement;
  readonly #handlers: ListHandlers;
  #lists = new Lists(recall("lists", [], isLists));
  /** The chosen list; empty for all instruments. */
  #chosen = recall("list", "", isText);
  /** The list of the address. */
  #shared: List | null = null;
  #sharedText: string | undefined;
  #symbol = "";

  constructor(dialog: HTMLDialogElement, bar: HTMLElement, button: HTMLElement, handlers: ListHandlers) {
    [this.#dialog, this.#bar, this.#handlers] = [dialog, bar, handlers];
    this.#select = field<HTMLSelectElement>(bar, "list");
    button.addEventListener("click", () => this.open());
    this.#select.addEventListener("change", () => this.#choose(this.#select.value));
    part(bar, "[data-action=keep-list]").addEventListener("click", () => this.#keep());
    part(bar, "[data-action=leave-list]").addEventListener("click", () => this.#leave());
    part(dialog, "[data-action=close-lists]").addEventListener("click", () => dialog.close());
    field(dialog, "list-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#create();
    });
    followed("lists", () => {
      this.#lists = new Lists(recall("lists", [], isLists));
      this.#show();
    });
    queueMicrotask(() => this.#show());
  }

  /** The instrument that the dialog adds to lists, or removes from them. */
  set symbol(symbol: string) {
    if (symbol === this.#symbol) return;
    this.#symbol = symbol;
    if (this.#dialog.open) this.#showDialog();
  }

  /** The list of the address, as text; `undefined` for none. */
  set address(text: string | undefined) {
    if (text === this.#sharedText) return;
    this.#sharedText = text;
    const list = text === undefined ? null : parseList(text);
    if (typeof list === "string") this.#handlers.problem(list);
    this.#shared = typeof list === "string" ? null : list;
    this.#show();
  }

  open(): void {
    this.#say("");
    this.#showDialog();
    if (!this.#dialog.open) this.#dialog.showModal();
    field(this.#dialog, "list-name").focus();
  }

  #choose(name: string): void {
    this.#chosen = name;
    remember("list", name);
    if (this.#shared === null) this.#show();
    else this.#leave();
  }

  #keep(): void {
    if (this.#shared === null) return;
    const name = this.#lists.keep(this.#shared);
    if (name === "") return this.#handlers.problem("There is no space for another list: delete one.");
    this.#chosen = name;
    remember("list", name);
    remember("lists", this.#lists.all);
    this.#leave();
  }

  /** The address has no list from here on. */
  #leave(): void {
    this.#shared = null;
    this.#sharedText = undefined;
    this.#handlers.left();
    this.#show();
    this.#select.focus();
  }

  #create(): void {
    const name = field<HTMLInputElement>(this.#dialog, "list-name");
    const problem = this.#lists.create(name.value, this.#symbol === "" ? [] : [this.#symbol]);
    if (problem === "") this.#chosen = name.value.trim();
    if (problem === "") name.value = "";
    remember("list", this.#chosen);
    this.#changed(problem);
  }

  /** A list was changed, or could not be. */
  #changed(problem = ""): void {
    this.#say(problem);
    remember("lists", this.#lists.all);
    this.#show();
  }

  /** Shows the choice, and passes on the chosen list. */
  #show(): void {
    if (this.#lists.find(this.#chosen) === undefined) this.#chosen = "";
    const shared = this.#shared;
    const options = [new Option("All instruments", ""), ...this.#lists.all.map(({ name }) => new Option(name, name))];
    if (shared !== null) options.push(new Option(`${shared.name} (shared)`, " "));
    this.#select.replaceChildren(...options);
    this.#select.value = shared === null ? this.#chosen : " ";
    this.#bar.hidden = options.length === 1;
    for (const name of ["keep-list", "leave-list"]) part(this.#bar, `[data-action=${name}]`).hidden = shared === null;
    const list = shared ?? this.#lists.find(this.#chosen);
    this.#handlers.shown(list === undefined ? null : new Set(list.symbols));
    if (this.#dialog.open) this.#showDialog();
  }

  #showDialog(): void {
    write(field(this.#dialog, "list-symbol"), this.#symbol === "" ? "" : `Ticked lists have ${this.#symbol}.`);
    const { all } = this.#lists;
    // The element of the focused control is made again: the focus stays at its place.
    const focused = document.activeElement?.getAttribute("aria-label") ?? "";
    field(this.#dialog, "list-list").replaceChildren(...all.map((list) => this.#item(list)));
    if (focused !== "") this.#dialog.querySelector<HTMLElement>(`[aria-label=${CSS.escape(focused)}]`)?.focus();
    const none = "No lists yet. A new list begins with the instrument.";
    write(field(this.#dialog, "list-none"), all.length === 0 ? none : "");
  }

  #item(list: List): HTMLElement {
    const { name, symbols } = list;
    const item = make("li");
    item.dataset["list"] = name;
    const has = make("input");
    has.type = "checkbox";
    has.checked = symbols.includes(this.#symbol);
    has.disabled = this.#symbol === "";
    attribute(has, "aria-label", `${name} has ${this.#symbol}`);
    has.addEventListener("change", () => {
      if (has.checked) return this.#changed(this.#lists.add(name, this.#symbol));
      this.#lists.remove(name, this.#symbol);
      this.#changed();
    });
    const label = make("input");
    label.value = name;
    label.maxLength = 40;
    attribute(label, "aria-label", `Name of the list ${name}`);
    label.addEventListener("change", () => {
      const problem = this.#lists.rename(name, label.value);
      if (problem === "" && this.#chosen === name) remember("list", (this.#chosen = label.value.trim()));
      this.#changed(problem);
    });
    const count = make("span", `${symbols.length} instrument${symbols.length === 1 ? "" : "s"}`, "count");
    const show = this.#button("Show", name, () => {
      this.#choose(name);
      this.#dialog.close();
    });
    const copy = this.#button("Copy link", name, () => void this.#copy(list));
    const remove = this.#button("Delete", name, () => {
      this.#lists.delete(name);
      this.#changed();
      field(this.#dialog, "list-name").focus();
    });
    item.append(has, label, count, show, copy, remove);
    return item;
  }

  #button(text: string, name: string, pressed: () => void): HTMLButtonElement {
    const button = make("button", text, "plain");
    button.type = "button";
    attribute(button, "aria-label", `${text}: ${name}`);
    button.addEventListener("click", pressed);
    return button;
  }

  async #copy(list: List): Promise<void> {
    if (list.symbols.length === 0) return this.#say("An empty list cannot be shared: add an instrument.");
    const link = this.#handlers.linkTo(listText(list));
    try {
      await navigator.clipboard.writeText(link);
      this.#say("The link is copied.");
    } catch {
      // Without HTTPS, or a permission: the user copies it by hand.
      this.#say(link);
    }
  }

  #say(text: string): void {
    write(field(this.#dialog, "list-message"), text);
  }
}
