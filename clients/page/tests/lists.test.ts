import { expect, test } from "vitest";
import { addressText, parseAddress } from "../src/address.ts";
import { LISTS_MAX, Lists, SYMBOLS_MAX, isLists, listText, parseList } from "../src/lists.ts";

test("a list in an address keeps every name", () => {
  const list = { name: "A:B, C&D=100% #1", symbols: ["BTC-USD", "BTC/USD", "a,b:c?d&e", "50%?#", "币安人生"] };
  const address = parseAddress(addressText("a?b&list=x", false, listText(list)));
  expect(address).toEqual({ view: "markets", symbol: "a?b&list=x", isEmbedded: false, list: listText(list) });
  expect(parseList(address.list ?? "")).toEqual(list);
  expect(parseList("Crypto:BTC-USD,ETH-USD,BTC-USD,")).toEqual({ name: "Crypto", symbols: ["BTC-USD", "ETH-USD"] });
});

test.each([
  ["", "no name"],
  ["BTC-USD,ETH-USD", "no name"],
  [":BTC-USD", "name is empty"],
  ["x:", "has 0 symbols: expected NAME:SYMBOL,SYMBOL with 1 to 200 symbols"],
  ["x:%zz", "wrong % sign"],
  ["x%0ay:A", "control characters"],
  [`${"x".repeat(41)}:A`, "41 letters: expected at most 40"],
  [`x:${"A".repeat(65)}`, "symbol of 65 letters"],
  [`x:${Array.from({ length: 201 }, (_, at) => at).join(",")}`, "has 201 symbols"],
])("a wrong list says what is wrong: %s", (text, problem) => {
  expect(parseList(text)).toContain(problem);
});

test("addresses name a view, a symbol and the chart alone", () => {
  expect(parseAddress("")).toEqual({ view: "markets", symbol: "", isEmbedded: false, list: undefined });
  expect(parseAddress("#operator").view).toBe("operator");
  expect(parseAddress("#/50%").symbol).toBe("50%");
  expect(parseAddress("#/BTC%2FUSD?view=chart")).toEqual({
    ...{ view: "markets", symbol: "BTC/USD", isEmbedded: true, list: undefined },
  });
  expect(addressText("BTC/USD", true)).toBe("#/BTC%2FUSD?view=chart");
});

test("lists are created, changed, renamed and deleted", () => {
  const lists = new Lists([]);
  expect(lists.create(" Crypto ")).toBe("");
  expect(lists.create("Crypto")).toContain("already");
  expect(lists.create("")).toContain("empty");
  expect([lists.add("Crypto", "A"), lists.add("Crypto", "B"), lists.add("Crypto", "A")]).toEqual(["", "", ""]);
  lists.remove("Crypto", "A");
  expect(lists.rename("Crypto", "Coins")).toBe("");
  expect(lists.all).toEqual([{ name: "Coins", symbols: ["B"] }]);
  lists.create("Other");
  expect(lists.rename("Other", "Coins")).toContain("already");
  lists.delete("Coins");
  expect(lists.all.map(({ name }) => name)).toEqual(["Other"]);
});

test("a shared list is kept once, and does not replace another of its name", () => {
  const lists = new Lists([]);
  const shared = { name: "Crypto", symbols: ["A"] };
  expect([lists.keep(shared), lists.keep(shared), lists.keep({ ...shared, symbols: ["B"] })]).toEqual([
    ...["Crypto", "Crypto", "Crypto 2"],
  ]);
});

test("sizes are bounded, and only whole lists are restored", () => {
  const lists = new Lists([{ name: "x", symbols: Array.from({ length: SYMBOLS_MAX }, (_, at) => String(at)) }]);
  expect(lists.add("x", "one more")).toContain("remove one");
  for (let at = 1; at < LISTS_MAX; at++) expect(lists.create(`list ${at}`)).toBe("");
  expect(lists.create("one more")).toContain("delete one");
  expect(lists.keep({ name: "one more", symbols: ["A"] })).toBe("");
  expect(isLists(JSON.parse(JSON.stringify(lists.all)))).toBe(true);
  for (const wrong of [null, {}, [null], [{ name: "", symbols: [] }], [{ name: "x", symbols: [1] }]]) {
    expect(isLists(wrong)).toBe(false);
  }
});
