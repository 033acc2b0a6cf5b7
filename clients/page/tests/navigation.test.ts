import { expect, test } from "vitest";
import { symbolOf } from "../src/navigation.ts";

const server = (...symbols: string[]) => ({
  mayHave: (symbol: string) => symbols.includes(symbol),
  fallback: () => symbols[0] ?? "",
});
const silent = { mayHave: () => true, fallback: () => "" };

test("a symbol that the address names is waited for, whatever the server has", () => {
  expect(symbolOf("ETH-USD", "BTC-USD", server("BTC-USD"))).toBe("ETH-USD");
});

test("the symbol of the last visit is waited for until the server has told of all that it has", () => {
  expect(symbolOf("", "BTC-USD", silent)).toBe("BTC-USD");
  expect(symbolOf("", "BTC-USD", server("ADA-USD", "BTC-USD"))).toBe("BTC-USD");
});

test("a symbol of the last visit that this server lacks gives way to one that it has", () => {
  expect(symbolOf("", "BTC-USD", server("ADA-USD"))).toBe("ADA-USD");
  expect(symbolOf("", "BTC-USD", server())).toBe("");
});

test("who was never here is shown what the server has", () => {
  expect(symbolOf("", "", silent)).toBe("");
  expect(symbolOf("", "", server("ADA-USD"))).toBe("ADA-USD");
});
