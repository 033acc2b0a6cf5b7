import { expect, test } from "vitest";
import { csvText, fileName } from "../src/csv.ts";

test("numbers stand as they are, and text is quoted", () => {
  expect(csvText(["time", "price"], [["BTC-USD", "-12.50"], ['a "b", c', ""]])).toBe(
    '"time","price"\r\n"BTC-USD",-12.50\r\n"a ""b"", c",\r\n',
  );
});

test("no cell is computed by a spreadsheet", () => {
  for (const text of ["=1+1", "+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "-", "=cmd|' /C calc'!A0"]) {
    expect(csvText([text], [])).toBe(`"'${text}"\r\n`);
  }
});

test("file names have only signs that every system takes", () => {
  const at = Date.parse("2026-12-01T14:32:16.042Z");
  expect(fileName(["BTC/USD", "1m"], at, "csv")).toBe("tickcast BTC-USD 1m 2026-12-01 143216.csv");
  expect(fileName(["../../x\\y:z", "币安"], at, "png")).toBe("tickcast -..-x-y-z 币安 2026-12-01 143216.png");
});
