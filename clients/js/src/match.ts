/** Names and patterns against symbols, for adapters. */

/** Whether a symbol is one of these names, or begins as one of these patterns does. */
export function matcher(symbols: readonly string[]): (symbol: string) => boolean {
  const exact = new Set(symbols);
  const prefixes = symbols.filter((symbol) => symbol.endsWith("*")).map((symbol) => symbol.slice(0, -1));
  return (symbol) => exact.has(symbol) || prefixes.some((prefix) => symbol.startsWith(prefix));
}
