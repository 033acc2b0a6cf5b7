/** A button that opens a menu below itself. Escape, a click elsewhere and Tab beyond its end close it. */

import { attribute, part } from "./dom.ts";

export class Menu {
  readonly #root: HTMLElement;
  readonly #button: HTMLElement;
  readonly #items: HTMLElement;

  constructor(root: HTMLElement) {
    this.#root = root;
    this.#button = part(root, "[data-action=menu]");
    this.#items = part(root, ".items");
    this.#button.addEventListener("click", () => this.#show(this.#items.hidden !== false));
    this.#items.addEventListener("click", (event) => {
      // Toggles leave the menu open: several may be wanted.
      const item = (event.target as Element).closest("button");
      if (item !== null && !item.hasAttribute("aria-pressed")) this.#close();
    });
    root.addEventListener("keydown", (event) => {
      if (this.#items.hidden !== false) return;
      if (event.key === "Escape") this.#close();
      else if (event.key === "ArrowDown") this.#move(1);
      else if (event.key === "ArrowUp") this.#move(-1);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    root.addEventListener("focusout", (event) => {
      if (event.relatedTarget instanceof Node && !root.contains(event.relatedTarget)) this.#show(false);
    });
    document.addEventListener("pointerdown", (event) => {
      if (!root.contains(event.target as Node)) this.#show(false);
    });
  }

  #show(open: boolean): void {
    this.#items.hidden = !open;
    attribute(this.#button, "aria-expanded", String(open));
    if (open) this.#move(1);
  }

  #close(): void {
    this.#show(false);
    this.#button.focus();
  }

  #move(step: number): void {
    const items = [...this.#root.querySelectorAll<HTMLElement>(".items button:not([hidden])")];
    const at = items.indexOf(document.activeElement as HTMLElement);
    items[(at < 0 ? (step > 0 ? 0 : items.length - 1) : at + step + items.length) % items.length]?.focus();
  }
}
