/**
 * The dialog of the price alerts, and what a fired one shows: a notice in the page, and a notification of the browser
 * where the user permits it, which is asked for with the first alert.
 *
 * What always holds: alerts are in localStorage, and other tabs of the page follow. Each tab takes prices while it is
 * open; the tag of a notification makes one of what several tabs say.
 */

import { CHANGED, decimal, type Frame } from "tickcast";
import { type Alert, Alerts, isAlerts } from "./alerts.ts";
import { attribute, field, make, mark, part, write } from "./dom.ts";
import { priceText } from "./format.ts";
import type { Market } from "./market.ts";
import { followed, recall, remember } from "./store.ts";
import { Zone } from "./zones.ts";

const LOCAL = new Zone(undefined);
const STORED = "alerts";
/** Notices in the page; older ones stay in the dialog. */
const NOTICES_MAX = 5;

export class AlertPanel {
  readonly #dialog: HTMLDialogElement;
  readonly #button: HTMLElement;
  readonly #notices: HTMLElement;
  readonly #market: Market;
  #alerts = new Alerts(recall(STORED, [], isAlerts));
  /** The symbols of waiting alerts by the client's row. */
  #rows = new Map<number, string>();
  #symbol = "";

  constructor(dialog: HTMLDialogElement, button: HTMLElement, notices: HTMLElement, market: Market) {
    [this.#dialog, this.#button, this.#notices, this.#market] = [dialog, button, notices, market];
    button.addEventListener("click", () => this.open());
    field(dialog, "alert-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#add();
    });
    part(dialog, "[data-action=close-alerts]").addEventListener("click", () => dialog.close());
    followed(STORED, () => {
      this.#alerts = new Alerts(recall(STORED, [], isAlerts));
      this.#show();
    });
    this.#show();
  }

  /** The instrument for which the dialog adds alerts. */
  set symbol(symbol: string) {
    this.#symbol = symbol;
    write(field(this.#dialog, "alert-symbol"), symbol === "" ? "No instrument" : symbol);
  }

  open(): void {
    this.#say("");
    if (!this.#dialog.open) this.#dialog.showModal();
    field(this.#dialog, "alert-price").focus();
  }

  /** Instruments were defined or released: finds the rows of the symbols. */
  renew(): void {
    const { instruments } = this.#market.client;
    const rows = [...this.#alerts.symbols].map((symbol) => [instruments.row(symbol), symbol] as const);
    this.#rows = new Map(rows.filter(([row]) => row >= 0));
  }

  /** Compares the prices of a frame: each trade, and the last price of what has changed. */
  take({ trades, changed, what }: Frame): void {
    if (this.#rows.size === 0) return;
    const { pxExp } = this.#market.client.instruments;
    for (let at = 0; at < trades.length; at++) {
      const row = trades.row[at] ?? -1;
      const symbol = this.#rows.get(row);
      if (symbol !== undefined) this.#fire(symbol, decimal(trades.px[at] ?? NaN, pxExp[row] ?? 0, trades.pxRest[at]));
    }
    for (let at = 0; at < changed.length; at++) {
      const row = changed[at] ?? -1;
      if (((what[at] ?? 0) & (CHANGED.ticker | CHANGED.state)) !== 0 && this.#rows.has(row)) this.#takeLast(row);
    }
  }

  /** The last price of an instrument, unless it is an old one. */
  #takeLast(row: number): void {
    const symbol = this.#rows.get(row);
    if (symbol !== undefined && this.#market.state(row) === "LIVE") this.#fire(symbol, this.#market.lastDecimal(row));
  }

  #fire(symbol: string, price: string): void {
    if (price === "") return;
    const fired = this.#alerts.take(symbol, price, Date.now());
    if (fired.length === 0) return;
    for (const alert of fired) this.#tell(alert);
    this.#changed();
  }

  #tell(alert: Alert): void {
    const text = firedText(alert);
    const item = make("p", "", "fired");
    const close = make("button", "Dismiss", "plain");
    close.type = "button";
    close.addEventListener("click", () => item.remove());
    item.append(make("strong", alert.symbol), make("span", text), close);
    this.#notices.prepend(item);
    while (this.#notices.childElementCount > NOTICES_MAX) this.#notices.lastElementChild?.remove();
    if (!("Notification" in window) || Notification.permission !== "granted") return;
    try {
      new Notification(alert.symbol, { body: text, tag: alert.id });
    } catch {
      // Some phones show notifications of service workers only: the page has its notice.
    }
  }

  #add(): void {
    const price = field<HTMLInputElement>(this.#dialog, "alert-price");
    const side = field<HTMLSelectElement>(this.#dialog, "alert-side").value === "below" ? "below" : "above";
    const problem = this.#alerts.add(this.#symbol, side, price.value, Date.now());
    this.#say(problem);
    if (problem !== "") return;
    price.value = "";
    this.#changed();
    void this.#ask();
    // The price may be there already.
    const row = this.#market.client.instruments.row(this.#symbol);
    if (row >= 0) this.#takeLast(row);
  }

  /** Asks for the permission, if the user was not asked before. */
  async #ask(): Promise<void> {
    if (!("Notification" in window)) return;
    const isNew = Notification.permission === "default";
    const permission = isNew ? await Notification.requestPermission() : Notification.permission;
    if (permission !== "granted") this.#say("This browser shows no notifications of this page: the page shows alerts.");
  }

  #changed(): void {
    remember(STORED, this.#alerts.all);
    this.#show();
  }

  #show(): void {
    this.renew();
    const { all } = this.#alerts;
    const waiting = all.filter(({ firedAt }) => firedAt === 0).length;
    attribute(this.#button, "aria-label", waiting === 0 ? "Price alerts" : `Price alerts: ${waiting} waiting`);
    mark(this.#button, "waiting", waiting === 0 ? "" : String(waiting));
    field(this.#dialog, "alert-list").replaceChildren(...all.map((alert) => this.#item(alert)));
    write(field(this.#dialog, "alert-none"), all.length === 0 ? "No alerts yet." : "");
  }

  #item(alert: Alert): HTMLElement {
    const item = make("li");
    const bound = `${alert.side} ${priceText(alert.price)}`;
    const remove = make("button", "Remove", "plain");
    remove.type = "button";
    attribute(remove, "aria-label", `Remove the alert of ${alert.symbol} ${bound}`);
    remove.addEventListener("click", () => {
      this.#alerts.remove(alert.id);
      this.#changed();
      part(this.#dialog, "[data-action=close-alerts]").focus();
    });
    const state = alert.firedAt === 0 ? "waiting" : `fired ${firedTime(alert.firedAt)}`;
    item.append(make("strong", alert.symbol), make("span", bound), make("span", state, "quiet"), remove);
    mark(item, "fired", alert.firedAt === 0 ? "" : "yes");
    return item;
  }

  #say(text: string): void {
    write(field(this.#dialog, "alert-message"), text);
  }
}

function firedText({ side, price, firedPrice }: Alert): string {
  return `is at ${priceText(firedPrice)}, ${side === "above" ? "at or above" : "at or below"} ${priceText(price)}`;
}

/** In the zone of this computer. */
function firedTime(unixMs: number): string {
  return `${LOCAL.day(unixMs, true)} ${LOCAL.clock(unixMs)} ${LOCAL.label(unixMs)}`;
}
