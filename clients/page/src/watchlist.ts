/**
 * The watchlist of all instruments; only the rows in view are in the document.
 *
 * What always holds: a frame writes only changed rows in view, and in them only texts that differ; nothing is measured
 * within a frame. An order by a changing value is renewed once a second, and not while the pointer moves over the rows,
 * so that a click hits the intended row.
 */

import { Virtualizer, elementScroll, observeElementOffset, observeElementRect } from "@tanstack/virtual-core";
import type { Frame } from "tickcast";
import { Columns, attribute, field, make, part, write } from "./dom.ts";
import { countText, instrumentsText } from "./format.ts";
import type { Market } from "./market.ts";
import { type Sort, type SortKey, afterClick, matches, sortRows, symbolRanks } from "./order.ts";
import { EVERY_MS, Sparks } from "./spark.ts";
import { SparkHistory } from "./spark-history.ts";
import { isFlag, isText, isTexts, recall, remember } from "./store.ts";
import { FOLD, FoldRow, isOver } from "./watchlist-fold.ts";
import { WatchlistRow } from "./watchlist-row.ts";

/** Rows beyond the view, so that scrolling shows no empty rows. */
const SPARE_ROWS = 8;
/** How long the order is kept after the pointer has moved over the rows. */
const HOLD_MS = 1500;
/** The order of states: those that need attention come last, or first when descending. */
const STATES = ["LIVE", "RESYNCING", "UNKNOWN", "STALE", "HALTED", "ENDED"];
const SORTS: readonly string[] = ["symbol", "bid", "ask", "last", "change", "spread", "volume", "state"];

export class Watchlist {
  readonly #market: Market;
  readonly #open: (row: number) => void;
  readonly #root: HTMLElement;
  readonly #grid: HTMLElement;
  readonly #rows: HTMLElement;
  readonly #columns: Columns;
  readonly #template: HTMLTemplateElement;
  readonly #virtual: Virtualizer<HTMLElement, HTMLElement>;
  readonly #sparks = new Sparks();
  readonly #sparkHistory: SparkHistory;
  #empty: Reason | null = null;
  /** Users who prefer reduced motion get arrows without flashes. */
  readonly #reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

  #sort: Sort = recall("sort", { by: "symbol", descending: false }, isSort);
  #search = "";
  /** The symbols of the chosen list; null for all instruments. */
  #list: ReadonlySet<string> | null = null;
  #pins = new Set(recall("pins", [], isTexts));
  #pinnedOnly = recall("pinned-only", false, isFlag);
  /** The client's rows in the shown order, and {@link FOLD} for the row under which others are folded. */
  #order: number[] = [];
  readonly #fold = new FoldRow();
  #isFoldOpen = recall("ended", false, isFlag);
  /** How many of the listed instruments have ended, or are not back. */
  #folds = { ended: 0, away: 0 };
  /** 1 for the rows that were over when the order was renewed. */
  #over = new Uint8Array(0);
  /** The numbers of listed instruments, folded ones as well; of those that the server has; and of those that it had
   *  before its restart and has not again. */
  #listed = 0;
  #known = 0;
  #away = 0;
  #ranks: Float64Array = new Float64Array(0);
  #orderIsOld = true;
  #heldUntil = 0;
  /** 1 for rows with changes that are not drawn yet. */
  #dirty = new Uint8Array(0);
  #shown = new Map<number, WatchlistRow>();
  #spare: WatchlistRow[] = [];
  #rowHeight = 28;
  #chosen = -1;
  #active = -1;

  constructor(root: HTMLElement, market: Market, open: (row: number) => void) {
    this.#market = market;
    this.#open = open;
    this.#root = root;
    this.#grid = part(root, "[role=grid]");
    this.#rows = part(root, ".rows");
    this.#columns = new Columns(this.#grid);
    this.#template = part<HTMLTemplateElement>(document, "#watchlist-row");
    this.#sparkHistory = new SparkHistory(market, (row, points) => {
      this.#sparks.fillBefore(row, points);
      this.#shown.get(row)?.spark(this.#sparks.points(row));
    });
    const scroller = field(root, "scroller");
    this.#virtual = new Virtualizer({
      count: 0,
      getScrollElement: () => scroller,
      estimateSize: () => this.#rowHeight,
      overscan: SPARE_ROWS,
      scrollToFn: elementScroll,
      observeElementRect,
      observeElementOffset,
      onChange: () => this.#arrange(performance.now()),
    });
    this.#virtual._didMount();
    this.#virtual._willUpdate();
    this.#listen(scroller);
    this.restyle();
    this.#showSort();
  }

  set search(text: string) {
    this.#search = text.trim().toLowerCase();
    this.#virtual.scrollToOffset(0);
    this.#renew();
    this.#active = this.#search === "" ? this.#chosen : (this.#order[0] ?? -1);
    this.#flagAll();
  }

  set list(symbols: ReadonlySet<string> | null) {
    this.#list = symbols;
    this.#renew();
  }

  /** The row that Enter in the search opens; -1 where nothing matches. */
  get first(): number {
    return this.#order.find((row) => row !== FOLD) ?? -1;
  }

  /** The rows in the shown order, pinned ones first. */
  get order(): readonly number[] {
    return this.#order.filter((row) => row !== FOLD);
  }

  /** The instrument that the other panels show. */
  set chosen(row: number) {
    this.#chosen = this.#active = row;
    this.#flagAll();
  }

  /** Rows were added, or the states of many have changed: the next frame renews the order. */
  renew(): void {
    this.#orderIsOld = true;
  }

  /** The state of an instrument has changed: the next frame renews the order if it is to be folded, or no more. */
  stateChanged(row: number): void {
    if (isOver(this.#market.state(row)) !== (this.#over[row] === 1)) this.#orderIsOld = true;
  }

  /** Marks the changed rows of a frame; {@link Watchlist.draw} draws them. */
  take(frame: Frame): void {
    const { rows } = this.#market;
    if (rows > this.#dirty.length) {
      this.#dirty = new Uint8Array(Math.max(rows, 2 * this.#dirty.length)).fill(1);
      this.#orderIsOld = true;
    }
    for (const row of frame.changed) this.#dirty[row] = 1;
  }

  /** Renews the order if it is due, and draws the changed rows in view. */
  draw(now: number): void {
    if (this.#orderIsOld) this.#renew();
    this.#write(now);
  }

  /** Ends flashes that are over; called several times a second, also without frames. */
  tick(now: number): void {
    for (const row of this.#shown.values()) row.endFlash(now);
  }

  /** Once a second: adds a point to each sparkline, and renews an order by changing values. */
  everySecond(now: number): void {
    this.#sparks.sample(this.#values("last"), this.#market.rows);
    for (const [row, shown] of this.#shown) shown.spark(this.#sparks.points(row));
    this.#sparkHistory.request(() => this.#shown.keys());
    if (this.#sort.by !== "symbol" && now > this.#heldUntil) this.#renew();
  }

  /** The width, and with it perhaps the height of rows, has changed. */
  restyle(): void {
    const height = parseFloat(getComputedStyle(this.#root).getPropertyValue("--row"));
    if (height !== this.#rowHeight) {
      this.#rowHeight = height;
      this.#virtual.measure();
    }
    for (const shown of this.#shown.values()) shown.index = -1;
    this.#arrange(performance.now());
  }

  #renew(): void {
    this.#orderIsOld = false;
    const market = this.#market;
    if (this.#ranks.length !== market.rows) {
      this.#ranks = symbolRanks(Array.from({ length: market.rows }, (_, row) => market.symbol(row)));
    }
    this.#known = this.#away = 0;
    this.#over = new Uint8Array(market.rows);
    const [listed, over]: [number[], number[]] = [[], []];
    for (let row = 0; row < market.rows; row++) {
      if (market.isKnown(row) && market.state(row) === "UNKNOWN") this.#away += 1;
      else if (market.isKnown(row)) this.#known += 1;
      this.#over[row] = Number(isOver(market.state(row)));
      if (this.#isListed(row)) (this.#over[row] === 1 ? over : listed).push(row);
    }
    this.#listed = listed.length + over.length;
    const away = over.filter((row) => market.state(row) === "UNKNOWN").length;
    this.#folds = { ended: over.length - away, away };
    const isPinned = (row: number): boolean => this.#pins.has(market.symbol(row));
    const values = this.#values(this.#sort.by);
    for (const rows of [listed, over]) sortRows(rows, values, this.#sort.descending, this.#ranks, isPinned);
    this.#order = this.#folded(listed, over);
    this.#virtual.setOptions({ ...this.#virtual.options, count: this.#order.length });
    this.#virtual._willUpdate();
    this.#rows.style.height = `${this.#order.length * this.#rowHeight}px`;
    attribute(this.#grid, "aria-rowcount", String(this.#order.length + 1));
    this.#arrange(performance.now());
    this.#showCount();
  }

  /** The rows with those that are over under a row of their own. A search shows what it finds. */
  #folded(listed: number[], over: number[]): number[] {
    if (over.length === 0 || this.#search !== "") return [...listed, ...over];
    return [...listed, FOLD, ...(this.#isFoldOpen ? over : [])];
  }

  #toggleFold(): void {
    this.#isFoldOpen = !this.#isFoldOpen;
    remember("ended", this.#isFoldOpen);
    this.#active = FOLD;
    this.#renew();
    this.#flagAll();
  }

  #isListed(row: number): boolean {
    if (!this.#market.isKnown(row)) return false;
    if (this.#list !== null && !this.#list.has(this.#market.symbol(row))) return false;
    if (this.#pinnedOnly && !this.#pins.has(this.#market.symbol(row))) return false;
    return this.#search === "" || matches(this.#market.searchKeys(row), this.#search);
  }

  /** The values of a column by row, comparable across instruments. */
  #values(key: SortKey): Float64Array {
    const { client } = this.#market;
    const values = new Float64Array(this.#market.rows);
    const fill = (of: (row: number) => number): Float64Array => {
      for (let row = 0; row < values.length; row++) values[row] = of(row);
      return values;
    };
    if (key === "symbol") return this.#ranks;
    if (key === "bid") return fill((row) => client.price(row, client.quotes.bidPx[row] ?? NaN));
    if (key === "ask") return fill((row) => client.price(row, client.quotes.askPx[row] ?? NaN));
    if (key === "last") return fill((row) => client.price(row, this.#market.last(row)));
    if (key === "change") return fill((row) => this.#market.change(row));
    if (key === "spread") return fill((row) => this.#market.spreadBp(row));
    if (key === "volume") return fill((row) => this.#market.volume(row));
    return fill((row) => STATES.indexOf(this.#market.state(row)));
  }

  /** Puts the rows in view into the document at their positions; reuses the elements of rows that left the view. */
  #arrange(now: number): void {
    const items = this.#virtual.getVirtualItems();
    const inView = new Map(items.map((item) => [this.#order[item.index] ?? -1, item.index]));
    inView.delete(-1);
    this.#arrangeFold(inView.get(FOLD));
    inView.delete(FOLD);
    for (const [row, shown] of this.#shown) {
      if (inView.has(row)) continue;
      this.#shown.delete(row);
      this.#spare.push(shown);
    }
    for (const [row, index] of inView) (this.#shown.get(row) ?? this.#addRow(row, now)).setPosition(index, this.#rowHeight);
    for (const spare of this.#spare) spare.element.remove();
    this.#columns.apply();
    this.#keepOrder(items.map((item) => this.#order[item.index] ?? -1));
    this.#showActive();
  }

  /** Puts the row of the folded instruments at its position, or takes it out of the document. */
  #arrangeFold(index: number | undefined): void {
    if (index === undefined) return this.#fold.element.remove();
    this.#fold.show(this.#folds.ended, this.#folds.away, this.#isFoldOpen);
    this.#fold.setPosition(index, this.#rowHeight);
  }

  #addRow(row: number, now: number): WatchlistRow {
    const shown = this.#spare.pop() ?? new WatchlistRow(this.#template, this.#columns);
    this.#shown.set(row, shown);
    shown.assign(this.#market, row);
    // A row that comes into view does not flash: its price has not moved just now.
    shown.show(this.#market, now, false);
    shown.spark(this.#sparks.points(row));
    this.#flag(shown);
    return shown;
  }

  /** Keeps the rows of the document in order, for screen readers; moves only those in another position. */
  #keepOrder(rows: number[]): void {
    let next = this.#rows.firstElementChild;
    for (const row of rows) {
      const element = row === FOLD ? this.#fold.element : this.#shown.get(row)?.element;
      if (element === undefined) continue;
      if (element === next) next = next.nextElementSibling;
      else this.#rows.insertBefore(element, next);
    }
  }

  #write(now: number): void {
    for (const [row, shown] of this.#shown) {
      shown.endFlash(now);
      if (this.#dirty[row] !== 1) continue;
      this.#dirty[row] = 0;
      shown.show(this.#market, now, !this.#reducedMotion.matches);
    }
    this.#columns.apply();
  }

  #flag(shown: WatchlistRow): void {
    const { row } = shown;
    shown.flag(row === this.#chosen, row === this.#active, this.#pins.has(this.#market.symbol(row)));
  }

  #flagAll(): void {
    for (const shown of this.#shown.values()) this.#flag(shown);
    this.#fold.flag(this.#active === FOLD);
    this.#showActive();
  }

  /** Sets the active row for screen readers, if it is in the document. */
  #showActive(): void {
    const active = this.#active === FOLD ? this.#fold.element : this.#shown.get(this.#active)?.element;
    if (active?.isConnected !== true) this.#grid.removeAttribute("aria-activedescendant");
    else attribute(this.#grid, "aria-activedescendant", active.id);
  }

  #listen(scroller: HTMLElement): void {
    scroller.addEventListener("pointermove", () => (this.#heldUntil = performance.now() + HOLD_MS), { passive: true });
    this.#rows.addEventListener("click", (event) => {
      const target = event.target as Element;
      if (target.closest("#watchlist-fold") !== null) return this.#toggleFold();
      const id = target.closest(".row")?.id ?? "";
      const row = Number(id.replace("instrument-", ""));
      if (id === "") return;
      if (target.closest("[data-action=pin]") !== null) this.#togglePin(row);
      else this.#open(row);
    });
    for (const button of this.#root.querySelectorAll<HTMLElement>("[data-sort]")) {
      button.addEventListener("click", () => this.#sortBy(button.dataset["sort"] as SortKey));
    }
    part(this.#root, "[data-action=pinned-only]").addEventListener("click", () => {
      this.#pinnedOnly = !this.#pinnedOnly;
      remember("pinned-only", this.#pinnedOnly);
      this.#showSort();
      this.#renew();
    });
    this.#grid.addEventListener("keydown", (event) => this.#onKey(event));
  }

  #onKey(event: KeyboardEvent): void {
    if (event.target !== this.#grid || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor((this.#virtual.scrollRect?.height ?? 0) / this.#rowHeight) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const step = steps[event.key as keyof typeof steps];
    if (step !== undefined) this.move(step);
    else if ((event.key === "Enter" || event.key === " ") && this.#active === FOLD) this.#toggleFold();
    else if (event.key === "Enter" && this.#active >= 0) this.#open(this.#active);
    else if (event.key.toLowerCase() === "p" && this.#active >= 0) this.#togglePin(this.#active);
    else return;
    event.preventDefault();
  }

  /** Moves the active row, and scrolls it into view. */
  move(step: number): void {
    const at = this.#order.indexOf(this.#active);
    const next = Math.max(0, Math.min(this.#order.length - 1, (at < 0 && step > 0 ? -1 : at) + step));
    this.#active = this.#order[next] ?? -1;
    this.#virtual.scrollToIndex(next);
    this.#arrange(performance.now());
    this.#flagAll();
  }

  /** Focuses the rows. */
  focus(): void {
    this.#grid.focus({ preventScroll: true });
  }

  #togglePin(row: number): void {
    const symbol = this.#market.symbol(row);
    if (!this.#pins.delete(symbol)) this.#pins.add(symbol);
    remember("pins", [...this.#pins]);
    this.#renew();
    this.#flagAll();
  }

  #sortBy(by: SortKey): void {
    this.#sort = afterClick(this.#sort, by);
    remember("sort", this.#sort);
    this.#virtual.scrollToOffset(0);
    this.#showSort();
    this.#renew();
  }

  #showSort(): void {
    for (const button of this.#root.querySelectorAll<HTMLElement>("[data-sort]")) {
      const head = button.parentElement;
      if (button.dataset["sort"] !== this.#sort.by) head?.removeAttribute("aria-sort");
      else head?.setAttribute("aria-sort", this.#sort.descending ? "descending" : "ascending");
    }
    attribute(part(this.#root, "[data-action=pinned-only]"), "aria-pressed", String(this.#pinnedOnly));
  }

  #showCount(): void {
    write(field(this.#root, "count"), instrumentsText(this.#listed, this.#known, this.#away));
    const pinned = this.#pins.size > 0 ? `${countText(this.#pins.size)} pinned` : "";
    write(field(this.#root, "order"), pinned);
    this.#showEmpty();
  }

  /** Why there are no instruments; null for the state of the connection. */
  set empty(empty: Reason | null) {
    if (empty?.[1] === this.#empty?.[1]) return;
    this.#empty = empty;
    this.#showEmpty();
  }

  /** Shows the reason if there are no rows. */
  #showEmpty(): void {
    const empty = field(this.#root, "empty");
    empty.hidden = this.#listed > 0;
    const { phase } = this.#market.client.connection;
    const rows = this.#known + this.#away;
    const [title, hint] =
      (rows === 0 && this.#empty) || emptyTexts(rows, this.#search, this.#pinnedOnly, phase === "live", this.#list?.size ?? NaN);
    write(field(empty, "empty-title"), title);
    write(field(empty, "empty-hint"), hint);
    const spinner = empty.querySelector(".spinner");
    const isConnecting = rows === 0 && phase === "connecting" && this.#empty === null;
    if (isConnecting && spinner === null) empty.prepend(make("span", "", "spinner"));
    if (!isConnecting) spinner?.remove();
  }
}

/** Title and hint in place of rows. */
type Reason = readonly [title: string, hint: string];

/** `listed` is the size of the chosen list; NaN for all instruments. */
function emptyTexts(
  rows: number,
  search: string,
  pinnedOnly: boolean,
  live: boolean,
  listed: number,
): [string, string] {
  if (rows === 0 && !live) return ["Connecting", "Prices appear as soon as the server answers."];
  if (rows === 0) return ["No instruments yet", "They appear here as soon as a feed or a publisher defines one."];
  if (search !== "") return ["No symbol matches", `No symbol or venue contains “${search}”.`];
  if (listed === 0) return ["The list is empty", "The button Lists, or the key L, adds instruments."];
  if (listed > 0) return ["Nothing of the list", `This server has none of its ${countText(listed)} instruments.`];
  return pinnedOnly ? ["Nothing is pinned", "A star, or the key P, pins an instrument."] : ["", ""];
}

function isSort(value: unknown): value is Sort {
  const { by, descending } = (value ?? {}) as Partial<Sort>;
  return isText(by) && SORTS.includes(by) && isFlag(descending);
}

/** The interval at which {@link Watchlist.everySecond} is to be called. */
export const SECOND_MS = EVERY_MS;
