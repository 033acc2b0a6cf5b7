import { expect, test } from "vitest";
import { UTC, Zone, isZoneChoice, venueZone, zoneOf } from "../src/zones.ts";

const at = (text: string): number => Date.parse(text);

test("times are those of the zone, in winter and summer time", () => {
  const newYork = new Zone("America/New_York");
  expect(newYork.clock(at("2026-12-01T14:32:16.042Z"), true)).toBe("09:32:16.042");
  expect(newYork.clock(at("2026-07-01T14:32:16Z"))).toBe("10:32:16");
  expect([newYork.label(at("2026-12-01T00:00:00Z")), newYork.label(at("2026-07-01T00:00:00Z"))]).toEqual([
    "UTC−5",
    "UTC−4",
  ]);
  // The second before summer time begins, and its first.
  expect(newYork.clock(at("2026-03-08T06:59:59Z"))).toBe("01:59:59");
  expect(newYork.clock(at("2026-03-08T07:00:00Z"))).toBe("03:00:00");
});

test("zones have days of their own, and parts of an hour", () => {
  const tokyo = new Zone("Asia/Tokyo");
  expect([tokyo.day(at("2026-12-31T20:00:00Z"), true), UTC.day(at("2026-12-31T20:00:00Z"))]).toEqual([
    "1 Jan 2027",
    "31 Dec",
  ]);
  expect([tokyo.month(at("2026-12-31T20:00:00Z")), UTC.month(at("2026-12-31T20:00:00Z"))]).toEqual(["2027", "Dec"]);
  expect(new Zone("Asia/Kolkata").label(0)).toBe("UTC+5:30");
  expect(new Zone("Asia/Kolkata").clock(0)).toBe("05:30:00");
  expect(UTC.label(0)).toBe("UTC");
});

test("the zone of this computer is that of its dates", () => {
  const time = at("2026-07-01T14:32:16Z");
  const two = (value: number): string => String(value).padStart(2, "0");
  expect(zoneOf("local", "XNYS").clock(time).slice(0, 2)).toBe(two(new Date(time).getHours()));
});

test("a venue has the time zone of its trading day, and crypto venues have UTC", () => {
  const zones = ["XNYS", "xnas", "XLON", "SIM-ARCA", "Binance", "XTKS", "TEST", ""].map(venueZone);
  expect(zones).toEqual([
    ...["America/New_York", "America/New_York", "Europe/London", "America/New_York", "UTC", "Asia/Tokyo"],
    ...[undefined, undefined],
  ]);
  expect(zoneOf("exchange", "XTKS").clock(0)).toBe("09:00:00");
  expect(zoneOf("exchange", "TEST").clock(0)).toBe("00:00:00");
});

test("every zone of the table is known", () => {
  for (const venue of ["XCME", "XTSE", "XMEX", "BVMF", "XDUB", "XLIS", "XJSE", "XTAE", "XSAU", "XNZE", "XKRX"]) {
    expect(() => zoneOf("exchange", venue).clock(0)).not.toThrow();
    expect(venueZone(venue)).toBeDefined();
  }
});

test("only the offered choices are restored", () => {
  expect(["local", "utc", "exchange"].every(isZoneChoice)).toBe(true);
  expect(["mars", 1, null].some(isZoneChoice)).toBe(false);
});
