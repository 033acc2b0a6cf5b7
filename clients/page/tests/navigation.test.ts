import { expect, test } from "vitest";
import { symbolOf } from "../src/navigation.ts";

const server = (...symbols: string[]) => ({
  mayShow: (symbol: string) => symbols.includes(symbol),
  fallback: () => symbols[0] ?? "",
});
const loading = { mayShow: () => true, fallback: () => "" };

test("a symbol in the address is shown also if the server does not have it", () => {
  expect(symbolOf("ETH-USD", "BTC-USD", server("BTC-USD"))).toBe("ETH-USD");
});

test("the symbol of the last visit is shown while the server may have it", () => {
  expect(symbolOf("", "BTC-USD", loading)).toBe("BTC-USD");
  expect(symbolOf("", "BTC-USD", server("ADA-USD", "BTC-USD"))).toBe("BTC-USD");
});

test("a symbol of the last visit without prices is replaced by the fallback", () => {
  expect(symbolOf("", "BTC-USD", server("ADA-USD"))).toBe("ADA-USD");
  expect(symbolOf("", "BTC-USD", server())).toBe("");
});

test("a first visit shows the fallback", () => {
  expect(symbolOf("", "", loading)).toBe("");
  expect(symbolOf("", "", server("ADA-USD"))).toBe("ADA-USD");
});
