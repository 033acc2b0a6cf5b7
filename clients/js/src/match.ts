/** Names and patterns against symbols, for adapters. */

/** Returns a test whether one of these names or patterns covers a symbol. */
export function matcher(symbols: readonly string[]): (symbol: string) => boolean {
  const exact = new Set(symbols);
  const prefixes = symbols.filter((symbol) => symbol.endsWith("*")).map((symbol) => symbol.slice(0, -1));
  return (symbol) => exact.has(symbol) || prefixes.some((prefix) => symbol.startsWith(prefix));
}
