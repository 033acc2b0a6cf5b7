/**
 * What the address of the page names after its `#`: `#/BTC-USD`, `#operator`, `#/BTC-USD?view=chart`,
 * `#/BTC-USD?list=Crypto:BTC-USD,ETH-USD`. Pure.
 */

export interface Address {
  readonly view: "markets" | "operator";
  /** Empty for none. */
  readonly symbol: string;
  /** The chart alone, for another page that frames this one. */
  readonly isEmbedded: boolean;
  /** A list of instruments, as {@link parseList} takes it; `undefined` for none. */
  readonly list: string | undefined;
}

export function parseAddress(hash: string): Address {
  if (hash === "#operator") return { view: "operator", symbol: "", isEmbedded: false, list: undefined };
  const path = hash.startsWith("#/") ? hash.slice(2) : "";
  const question = path.indexOf("?");
  const symbol = decoded(question < 0 ? path : path.slice(0, question));
  const parameters = question < 0 ? [] : path.slice(question + 1).split("&");
  const of = (name: string): string | undefined =>
    parameters.find((parameter) => parameter.startsWith(`${name}=`))?.slice(name.length + 1);
  return { view: "markets", symbol, isEmbedded: of("view") === "chart", list: of("list") };
}

export function addressText(symbol: string, isEmbedded = false, list?: string): string {
  const parameters = [isEmbedded ? "view=chart" : "", list === undefined ? "" : `list=${list}`];
  const query = parameters.filter((parameter) => parameter !== "").join("&");
  return `#/${encodeURIComponent(symbol)}${query === "" ? "" : `?${query}`}`;
}

/** A symbol of the address; with invalid escapes it is used as it is. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
