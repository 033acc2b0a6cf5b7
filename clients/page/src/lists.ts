/**
 * Named lists of instruments: stored by the page, and shared in its address, as `Crypto:BTC-USD,ETH-USD` where each
 * name is percent-encoded. Pure.
 */

export interface List {
  readonly name: string;
  readonly symbols: readonly string[];
}

export const LISTS_MAX = 50;
export const SYMBOLS_MAX = 200;
const NAME_MAX = 40;
/** Of a symbol, as the protocol has it. */
const SYMBOL_MAX = 64;
const EXPECTED = `expected NAME:SYMBOL,SYMBOL with 1 to ${SYMBOLS_MAX} symbols`;

/** The list of an address, or what is wrong with it. */
export function parseList(text: string): List | string {
  const colon = text.indexOf(":");
  if (colon < 0) return `The list in the address has no name: ${EXPECTED}.`;
  const parts = [text.slice(0, colon), ...text.slice(colon + 1).split(",")].map(decodedPart);
  if (parts.some((part) => part === null)) {
    return "The list in the address has a wrong % sign: expected two hex digits after it.";
  }
  const [name = "", ...symbols] = parts as string[];
  const wrong = nameProblem(name.trim());
  if (wrong !== "") return `The list in the address: ${wrong}`;
  const known = [...new Set(symbols.filter((symbol) => symbol !== ""))];
  if (known.length === 0 || known.length > SYMBOLS_MAX) {
    return `The list in the address has ${known.length} symbols: ${EXPECTED}.`;
  }
  const long = known.find((symbol) => symbol.length > SYMBOL_MAX);
  if (long !== undefined) {
    return `The list in the address has a symbol of ${long.length} letters: expected at most ${SYMBOL_MAX}.`;
  }
  return { name: name.trim(), symbols: known };
}

export function listText({ name, symbols }: List): string {
  return `${encodeURIComponent(name)}:${symbols.map(encodeURIComponent).join(",")}`;
}

function decodedPart(text: string): string | null {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}

function nameProblem(name: string): string {
  if (name === "") return "its name is empty.";
  if (name.length > NAME_MAX) return `its name has ${name.length} letters: expected at most ${NAME_MAX}.`;
  return /\p{Cc}/u.test(name) ? "its name has control characters." : "";
}

/** The stored lists. Methods that can fail return what is wrong, or an empty text. */
export class Lists {
  #all: readonly List[];

  constructor(all: readonly List[]) {
    this.#all = all;
  }

  get all(): readonly List[] {
    return this.#all;
  }

  find(name: string): List | undefined {
    return this.#all.find((list) => list.name === name);
  }

  create(name: string, symbols: readonly string[] = []): string {
    const problem = this.#nameProblem(name);
    if (problem !== "") return problem;
    if (this.#all.length >= LISTS_MAX) return `There are ${LISTS_MAX} lists already: delete one.`;
    this.#all = [...this.#all, { name: name.trim(), symbols }];
    return "";
  }

  /** Keeps a list, under another name if there is one of its name with other symbols; returns the name, or "" if there
   *  is no space. */
  keep(list: List): string {
    const same = this.find(list.name);
    if (same !== undefined && listText(same) === listText(list)) return same.name;
    let name = list.name;
    for (let nth = 2; this.find(name) !== undefined; nth++) name = `${list.name.slice(0, NAME_MAX - 4)} ${nth}`;
    return this.create(name, list.symbols) === "" ? name : "";
  }

  rename(from: string, to: string): string {
    if (from === to.trim()) return "";
    const problem = this.#nameProblem(to);
    if (problem === "") this.#change(from, (list) => ({ ...list, name: to.trim() }));
    return problem;
  }

  delete(name: string): void {
    this.#all = this.#all.filter((list) => list.name !== name);
  }

  add(name: string, symbol: string): string {
    const list = this.find(name);
    if (list === undefined || symbol === "" || list.symbols.includes(symbol)) return "";
    if (list.symbols.length >= SYMBOLS_MAX) return `The list has ${SYMBOLS_MAX} instruments already: remove one.`;
    this.#change(name, ({ symbols }) => ({ name, symbols: [...symbols, symbol] }));
    return "";
  }

  remove(name: string, symbol: string): void {
    this.#change(name, (list) => ({ name, symbols: list.symbols.filter((other) => other !== symbol) }));
  }

  #nameProblem(name: string): string {
    const problem = nameProblem(name.trim());
    if (problem !== "") return `The list: ${problem}`;
    return this.find(name.trim()) === undefined ? "" : `There is a list “${name.trim()}” already.`;
  }

  #change(name: string, change: (list: List) => List): void {
    this.#all = this.#all.map((list) => (list.name === name ? change(list) : list));
  }
}

/** Whether a stored value is lists. */
export function isLists(value: unknown): value is List[] {
  return Array.isArray(value) && value.length <= LISTS_MAX && value.every(isList);
}

function isList(value: unknown): value is List {
  const { name, symbols } = (value ?? {}) as Partial<List>;
  if (typeof name !== "string" || nameProblem(name) !== "" || !Array.isArray(symbols)) return false;
  return symbols.length <= SYMBOLS_MAX && symbols.every((symbol) => typeof symbol === "string");
}
