/** The view and the instrument, as the address has them, and the pane that a phone shows. */

import { addressText, parseAddress } from "./address.ts";
import { mark, part } from "./dom.ts";
import { isText, recall, remember } from "./store.ts";

export type View = "markets" | "operator";

export interface NavigationHandlers {
  /** An instrument is to be shown; empty while none is known. */
  symbolChosen(symbol: string): void;
  viewChosen(view: View): void;
  /** The address brings a list of instruments, as text; `undefined` for none. */
  listNamed(list: string | undefined): void;
  /** Whether prices of this symbol are shown, or may be soon because the server has not sent all instruments yet. */
  mayShow(symbol: string): boolean;
  /** The symbol to show if neither the address nor the last visit names one; empty while none has prices. */
  fallback(): string;
}

/**
 * The symbol to show. One that the address names is shown also if the server does not have it. One of the last visit
 * must have prices: it may have ended since, or be of another server at the same address.
 */
export function symbolOf(
  named: string,
  remembered: string,
  { mayShow, fallback }: Pick<NavigationHandlers, "mayShow" | "fallback">,
): string {
  if (named !== "") return named;
  return remembered !== "" && mayShow(remembered) ? remembered : fallback();
}

export class Navigation {
  readonly #handlers: NavigationHandlers;
  #view: View = "markets";
  #symbol = "";
  #list: string | undefined;
  #isEmbedded = false;

  constructor(handlers: NavigationHandlers) {
    this.#handlers = handlers;
    addEventListener("hashchange", () => this.#read());
    for (const button of document.querySelectorAll<HTMLElement>("[data-pane-of]")) {
      button.addEventListener("click", () => this.#press(button.dataset["paneOf"] ?? "watchlist"));
    }
    // Handlers may use objects that are created after this one: they are called once all exist.
    queueMicrotask(() => {
      this.#read();
      this.#show(this.#view === "operator" ? "operator" : this.#symbol === "" ? "watchlist" : "chart");
    });
  }

  get showsMarkets(): boolean {
    return this.#view === "markets";
  }

  /** Opens an instrument. */
  open(symbol: string): void {
    const hash = this.#hashOf(symbol);
    if (location.hash === hash) this.#show("chart");
    else location.hash = hash;
  }

  /** Goes back to the watchlist, on a phone to its pane. */
  back(): void {
    if (this.#view === "operator") location.hash = this.#hashOf(this.#symbol);
    this.#show("watchlist");
  }

  /** The address names no list from here on. */
  dropList(): void {
    this.#list = undefined;
    if (this.#view === "markets") history.replaceState(null, "", this.#hashOf(this.#symbol));
    part<HTMLAnchorElement>(document, "[data-go=markets]").href = this.#hashOf(this.#symbol);
  }

  /** Instruments were defined: the symbol may be known now. */
  settle(): void {
    this.#handlers.symbolChosen(symbolOf(this.#symbol, recall("symbol", "", isText), this.#handlers));
  }

  #read(): void {
    const { view, symbol: named, isEmbedded, list } = parseAddress(location.hash);
    if (view === "markets") {
      this.#list = list;
      this.#isEmbedded = isEmbedded;
    }
    if (view === "markets" && named !== "" && named !== this.#symbol) {
      this.#symbol = named;
      // A chart in another page is not what the user has visited here.
      if (!isEmbedded) remember("symbol", named);
      this.#show("chart");
    }
    this.#view = view;
    mark(document.body, "view", view);
    if (view === "operator") this.#show("operator");
    else if (document.body.dataset["pane"] === "operator") this.#show(this.#symbol === "" ? "watchlist" : "chart");
    for (const main of document.querySelectorAll<HTMLElement>("[data-view-of]")) {
      main.hidden = main.dataset["viewOf"] !== view;
    }
    for (const link of document.querySelectorAll<HTMLElement>("[data-go]")) {
      if (link.dataset["go"] === view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const back = part<HTMLAnchorElement>(document, "[data-go=markets]");
    back.href = this.#hashOf(this.#symbol);
    this.settle();
    // After the instrument: choosing one clears the notice, which may say what is wrong with the list.
    this.#handlers.listNamed(this.#list);
    this.#handlers.viewChosen(view);
  }

  #hashOf(symbol: string): string {
    return addressText(symbol, this.#isEmbedded, this.#list);
  }

  #press(pane: string): void {
    if (pane === "operator") location.hash = "#operator";
    else if (this.#view === "operator")
      location.hash = part<HTMLAnchorElement>(document, "[data-go=markets]").hash || "#/";
    this.#show(pane);
  }

  #show(pane: string): void {
    mark(document.body, "pane", pane);
    for (const button of document.querySelectorAll<HTMLElement>("[data-pane-of]")) {
      if (button.dataset["paneOf"] === pane) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }
}
