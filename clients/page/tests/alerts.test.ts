import { expect, test } from "vitest";
import { ALERTS_MAX, Alerts, compareDecimals, isAlerts, priceOf } from "../src/alerts.ts";

test("a typed price keeps its digits, and commas only group thousands", () => {
  const typed = ["61,837.63", " 61837.630 ", "−0.5", "007", "0.00000001", "1,234,567"];
  expect(typed.map(priceOf)).toEqual(["61837.63", "61837.630", "-0.5", "7", "0.00000001", "1234567"]);
  for (const wrong of ["", "1,5", "1.234,56", "12,34", "1e5", "0x10", "five", "1.", ".5", "--1", "9".repeat(41)]) {
    expect([wrong, priceOf(wrong)]).toEqual([wrong, null]);
  }
});

test("prices are compared as decimals, not as floats", () => {
  expect(compareDecimals("0.3", "0.30")).toBe(0);
  expect(compareDecimals("0.1", "0.10000000000000000001")).toBe(-1);
  expect(compareDecimals("90071992.54740993", "90071992.54740992")).toBe(1);
  expect(compareDecimals("-2", "-1.5")).toBe(-1);
  expect(compareDecimals("-0", "0.0")).toBe(0);
});

test("an alert fires once, at its price", () => {
  const alerts = new Alerts([]);
  expect(alerts.add("A", "above", "100.10", 5)).toBe("");
  expect(alerts.add("A", "below", "99", 5)).toBe("");
  expect(alerts.take("A", "100.09", 6)).toEqual([]);
  expect(alerts.take("B", "200", 6)).toEqual([]);
  const [fired, ...others] = alerts.take("A", "100.1", 7);
  expect([fired?.price, fired?.firedAt, fired?.firedPrice, others.length]).toEqual(["100.10", 7, "100.1", 0]);
  expect(alerts.take("A", "100.2", 8)).toEqual([]);
  expect([...alerts.symbols]).toEqual(["A"]);
  expect(alerts.take("A", "98.99", 9).map(({ side }) => side)).toEqual(["below"]);
  expect([...alerts.symbols]).toEqual([]);
  expect(alerts.all.length).toBe(2);
  alerts.remove(alerts.all[0]?.id ?? "");
  expect(alerts.all.map(({ side }) => side)).toEqual(["above"]);
});

test("what is wrong with an alert is said, and their number is bounded", () => {
  const alerts = new Alerts([]);
  expect(alerts.add("A", "above", "1,5", 0)).toContain("expected a number such as 61837.63");
  expect(alerts.add("", "above", "1", 0)).toContain("No instrument");
  for (let at = 0; at < ALERTS_MAX; at++) expect(alerts.add("A", "above", String(at), 0)).toBe("");
  expect(alerts.add("A", "above", "0.0", 0)).toContain("remove one");
  expect(new Alerts(alerts.all.slice(1)).add("A", "above", "7.0", 0)).toContain("already");
  expect(new Set(alerts.all.map(({ id }) => id)).size).toBe(ALERTS_MAX);
});

test("only whole alerts are restored", () => {
  const alerts = new Alerts([]);
  alerts.add("A", "above", "1.50", 0);
  expect(isAlerts(JSON.parse(JSON.stringify(alerts.all)))).toBe(true);
  const [alert] = alerts.all;
  for (const wrong of [null, {}, [null], [{}], [{ ...alert, price: "1e5" }], [{ ...alert, side: "up" }]]) {
    expect(isAlerts(wrong)).toBe(false);
  }
});
