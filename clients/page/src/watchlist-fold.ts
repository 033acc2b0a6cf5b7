/** The row of the watchlist under which instruments are folded that have ended, or are not back since a restart. */

import type { InstrumentState } from "tickcast";
import { attribute, make, mark, write } from "./dom.ts";
import { foldText } from "./format.ts";

/** Its number among the client's rows: -1 stands for no row. */
export const FOLD = -2;

/** Whether an instrument in this state has no prices to watch. */
export function isOver(state: InstrumentState): boolean {
  return state === "ENDED" || state === "UNKNOWN";
}

export class FoldRow {
  readonly element = make("div", "", "row fold");
  readonly #button = make("button");

  constructor() {
    this.element.id = "watchlist-fold";
    this.element.setAttribute("role", "row");
    const cell = make("div");
    cell.setAttribute("role", "gridcell");
    // Enter in the grid opens the row as well: Tab stops at the grid only.
    this.#button.type = "button";
    this.#button.tabIndex = -1;
    cell.append(this.#button);
    this.element.append(cell);
  }

  show(ended: number, away: number, isOpen: boolean): void {
    write(this.#button, foldText(ended, away));
    attribute(this.#button, "aria-expanded", String(isOpen));
  }

  flag(active: boolean): void {
    mark(this.element, "active", active ? "yes" : "");
  }

  setPosition(index: number, height: number): void {
    const top = `${index * height}px`;
    if (this.element.style.top !== top) this.element.style.top = top;
    // The header is the grid's first row.
    attribute(this.element, "aria-rowindex", String(index + 2));
  }
}
