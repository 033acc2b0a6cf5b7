import { expect, test } from "vitest";
import {
  instrumentsText,
  Digits,
  NONE,
  bytesText,
  compactText,
  floatText,
  foldText,
  millisText,
  percentText,
  priceText,
  spanText,
  spareOfTick,
  spareZeros,
  volumeText,
  withDecimals,
} from "../src/format.ts";

test("a price is grouped by thousands and keeps its digits", () => {
  expect(priceText("61837.63")).toBe("61,837.63");
  expect(priceText("9007199254740993.25")).toBe("9,007,199,254,740,993.25");
  expect(priceText("999")).toBe("999");
  expect(priceText("-1234.5")).toBe("−1,234.5");
  expect(priceText("0.00001234")).toBe("0.00001234");
});

test("spare decimals are cut, with the point if none is left", () => {
  expect(priceText("61837.6300", 2)).toBe("61,837.63");
  expect(priceText("61837.00", 2)).toBe("61,837");
});

test("only zeros are cut", () => {
  expect(spareZeros("61837.6300", 4)).toBe(2);
  expect(spareZeros("61837.6300", 1)).toBe(1);
  expect(spareZeros("61837.63", 2)).toBe(0);
  expect(spareZeros("1000", 3)).toBe(0);
});

test("a tick size gives the spare decimals of prices", () => {
  expect(spareOfTick(10, -2)).toBe(1);
  expect(spareOfTick(25, -2)).toBe(0);
  expect(spareOfTick(100_000, -4)).toBe(4);
  expect(spareOfTick(NaN, -8)).toBe(6);
  expect(spareOfTick(5, 2)).toBe(0);
});

test("a change has a sign unless it rounds to 0", () => {
  expect(percentText(1.234)).toBe("+1.23%");
  expect(percentText(-1.236)).toBe("−1.24%");
  expect(percentText(-0.001)).toBe("0.00%");
  expect(percentText(NaN)).toBe(NONE);
});

test("a compact number has three digits and a unit, also after rounding up", () => {
  expect(compactText(7)).toBe("7");
  expect(compactText(7.125)).toBe("7.13");
  expect(compactText(999.6)).toBe("1.00K");
  expect(compactText(276_730)).toBe("277K");
  expect(compactText(12_345_678)).toBe("12.3M");
  expect(compactText(9_996)).toBe("10.0K");
  expect(compactText(NaN)).toBe(NONE);
});

test("times and bytes are rounded", () => {
  expect(millisText(0.42)).toBe("0.4 ms");
  expect(millisText(123.4)).toBe("123 ms");
  expect(millisText(12_000)).toBe("12 s");
  expect(bytesText(999)).toBe("999 B");
  expect(bytesText(33_554_432)).toBe("33.6 MB");
  expect(spanText(59)).toBe("59 s");
  expect(spanText(3 * 3600 + 12 * 60)).toBe("3 h 12 min");
  expect(spanText(90_000)).toBe("1 d 1 h");
});

test("a row never shows fewer decimals than before", () => {
  const digits = new Digits();
  const shown = (text: string): string => priceText(text, digits.cut(3, text, () => 8));
  expect(shown("3.01000000")).toBe("3.01");
  expect(shown("15.02800000")).toBe("15.028");
  expect(shown("3.01000000")).toBe("3.010");
  expect(digits.spare(2)).toBe(-1);
  digits.forget(3);
  expect(shown("3.00000000")).toBe("3");
});

test("a volume shows no rounding errors of a sum of floats", () => {
  expect(volumeText(1.001, 8)).toBe("1.001");
  expect(volumeText(0.1 + 0.2, 8)).toBe("0.3");
  expect(volumeText(12345, 0)).toBe("12,345");
  expect(volumeText(1_234_567, 3)).toBe("1.23M");
  expect(volumeText(NaN, 2)).toBe(NONE);
});

test("a float shows no digits that it does not have", () => {
  expect(floatText(5.123, 18)).toBe("5.12300000000000");
  expect(floatText(0.000000000000001234, 18)).toBe("0.000000000000001234");
  expect(floatText(61837.63, 2)).toBe("61837.63");
  expect(floatText(-0.5, 0)).toMatch(/^-[01]$/);
  expect(floatText(0, 17)).toBe("0.000000000000000");
  expect(floatText(92233720368547758, 2)).toBe("92233720368547760");
  expect(floatText(2 ** 100, 0)).toBe("1267650600228229401496703205376");
  expect(volumeText(0.1 + 0.2, 18)).toBe("0.3");
  expect(compactText(-9.2e30)).toBe("−9.20e30");
});

test("a number at former exponents gets the decimals of the present ones, and loses only zeros", () => {
  expect(withDecimals("61837.63", 4)).toBe("61837.6300");
  expect(withDecimals("61837", 2)).toBe("61837.00");
  expect(withDecimals("61837.6300", 2)).toBe("61837.63");
  expect(withDecimals("61837.6350", 2)).toBe("61837.635");
  expect(withDecimals("61837.00", 0)).toBe("61837");
  expect(withDecimals("61800", 0)).toBe("61800");
  expect(withDecimals("", 2)).toBe("");
});

test("instruments that are not back after a restart are not counted as the server's", () => {
  expect([instrumentsText(200, 200, 0), instrumentsText(1, 1, 0), instrumentsText(3, 200, 0)]).toEqual([
    ...["200 instruments", "1 instrument", "3 of 200 instruments"],
  ]);
  expect(instrumentsText(200, 199, 1)).toBe("199 instruments, 1 not back since the restart");
  expect(instrumentsText(3, 0, 1200)).toBe("3 of 0 instruments, 1,200 not back since the restart");
});

test("the fold counts what has ended apart from what is not back", () => {
  const texts = [foldText(1200, 0), foldText(0, 2), foldText(3, 1)];
  expect(texts).toEqual(["1,200 ended", "2 not back", "3 ended, 1 not back"]);
});
