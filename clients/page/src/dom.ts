/** Helpers for the document. Each writes only differences, to avoid needless layout. */

/** The element of a selector that the page's markup must have. */
export function part<T extends Element = HTMLElement>(root: ParentNode, selector: string): T {
  const found = root.querySelector<T>(selector);
  if (found === null) throw new Error(`the page lacks ${selector}`);
  return found;
}

/** The element with this `data-field`. */
export function field<T extends Element = HTMLElement>(root: ParentNode, name: string): T {
  return part<T>(root, `[data-field="${name}"]`);
}

/** Writes a text into the existing text node, if it differs. */
export function write(target: Element, text: string): void {
  const node = target.firstChild;
  if (node === null) {
    if (text !== "") target.append(text);
  } else if (node.nodeValue !== text) {
    node.nodeValue = text;
  }
}

/**
 * Column widths that grow with the longest number: `--columns-NAME` of an element is its width in digits, where points
 * and commas count half. The style sheet sets the columns' widths by it, and reduces the font where space is missing.
 */
export class Columns {
  readonly #target: HTMLElement;
  readonly #widths = new Map<string, number>();
  #hasGrown = false;

  constructor(target: HTMLElement) {
    this.#target = target;
  }

  /** Resets the widths, for another instrument. */
  reset(): void {
    for (const name of this.#widths.keys()) this.#target.style.removeProperty(`--columns-${name}`);
    this.#widths.clear();
  }

  note(name: string, text: string): void {
    // Most texts are not longer, and need no count.
    const before = this.#widths.get(name) ?? 0;
    if (text.length <= before) return;
    const digits = digitsWide(text);
    if (digits <= before) return;
    this.#widths.set(name, digits);
    this.#hasGrown = true;
  }

  /** Passes widths that have grown to the style sheet. */
  apply(): void {
    if (!this.#hasGrown) return;
    this.#hasGrown = false;
    for (const [name, width] of this.#widths) this.#target.style.setProperty(`--columns-${name}`, String(width));
  }
}

/** The width of a number in digits. */
export function digitsWide(text: string): number {
  let wide = 0;
  for (const letter of text) wide += letter === "." || letter === "," ? 0.5 : 1;
  return wide;
}

/** Sets `data-name`, or removes it with an empty value. */
export function mark(target: HTMLElement, name: string, value: string): void {
  if ((target.dataset[name] ?? "") === value) return;
  if (value === "") delete target.dataset[name];
  else target.dataset[name] = value;
}

/** Sets an attribute where it differs. */
export function attribute(target: Element, name: string, value: string): void {
  if (target.getAttribute(name) !== value) target.setAttribute(name, value);
}

/** An element of a class with a text. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  text = "",
  className = "",
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className !== "") element.className = className;
  if (text !== "") element.textContent = text;
  return element;
}

/**
 * Makes a group of buttons a radio group: one is checked, arrow keys move, and Tab stops only at the checked one.
 * `value` is the name of the `data-…` attribute with each button's value. Returns a function that checks a button.
 */
export function radioGroup(
  group: HTMLElement,
  value: string,
  chosen: (value: string) => void,
): (value: string) => void {
  const buttons = [...group.querySelectorAll<HTMLButtonElement>("button")];
  const check = (next: string): void => {
    for (const button of buttons) {
      const checked = button.dataset[value] === next;
      attribute(button, "aria-checked", String(checked));
      button.tabIndex = checked ? 0 : -1;
    }
  };
  const choose = (button: HTMLButtonElement | undefined): void => {
    const next = button?.dataset[value];
    if (button === undefined || next === undefined) return;
    check(next);
    chosen(next);
  };
  for (const [at, button] of buttons.entries()) {
    button.addEventListener("click", () => choose(button));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      const next = buttons[(at + step + buttons.length) % buttons.length];
      next?.focus();
      choose(next);
    });
  }
  return check;
}

/** A colour of the style sheet, resolved for the present theme: `rgb(…)`. */
export function colour(name: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const resolved = getComputedStyle(probe).color;
  probe.remove();
  return resolved;
}

/** The same colour with another opacity, from 0 to 1. */
export function faded(rgb: string, opacity: number): string {
  const parts = rgb.match(/[\d.]+/g) ?? ["0", "0", "0"];
  return `rgba(${parts.slice(0, 3).join(", ")}, ${opacity})`;
}

/** Sets the size of a canvas in device pixels from its size in CSS pixels. */
export function fitCanvas(canvas: HTMLCanvasElement, cssWidth: number, cssHeight: number): void {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(cssWidth * ratio), Math.round(cssHeight * ratio)];
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
}
