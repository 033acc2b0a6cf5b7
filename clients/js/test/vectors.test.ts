/** The decoder against the golden bytes of clients/vectors. */

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { decimal } from "../src/format";
import { Outbox } from "../src/outbox";
import { Store } from "../src/store";
import * as wire from "../src/wire";

const file = new URL("../../vectors/packets.json", import.meta.url);
const vectors: { packets: any[]; invalid: any[] } = JSON.parse(readFileSync(file, "utf8"));

const TYPES: Record<string, number> = {
  ...{ quote: 1, trade: 2, ticker: 3, book: 4, raw: 5, definition: 16, heartbeat: 17, gap: 18, status: 19 },
};
/** Offsets of the 64-bit fields. */
const WORDS: Record<string, Record<string, number>> = {
  quote: { bid_px: 32, bid_sz: 40, ask_px: 48, ask_sz: 56 },
  trade: { px: 32, sz: 40 },
  ticker: {
    ...{ last_px: 32, open_px: 40, high_px: 48, low_px: 56 },
    ...{ volume: 64, turnover: 72, bid_px: 80, ask_px: 88 },
  },
  definition: { tick_size: 40, lot_size: 48 },
};

function viewOf(hex: string): DataView {
  const bytes = new Uint8Array(Buffer.from(hex, "hex"));
  return new DataView(bytes.buffer);
}

/** An integer as exact text, read as a number or as a BigInt; null where absent. */
function exactly(view: DataView, at: number, signed = true): string | null {
  const number = signed ? wire.i64(view, at) : wire.u64(view, at);
  if (Number.isNaN(number)) return null;
  return `${BigInt(number) + BigInt(wire.rest(view, at, number, signed))}`;
}

const nanoseconds = (view: DataView, at: number): string =>
  `${BigInt(wire.wholeMs(view, at)) * 1_000_000n + BigInt(wire.restNs(view, at))}`;

function found(packet: { hex: string }): [number, number][] {
  const list: [number, number][] = [];
  wire.eachRecord(viewOf(packet.hex), (at, type) => list.push([at, type]));
  return list;
}

describe.each(vectors.packets)("$name", (packet: any) => {
  const view = viewOf(packet.hex);
  const known = packet.records.filter((record: any) => record.type !== "unknown");

  test("known records are found, unknown ones skipped", () => {
    expect(found(packet).map(([, type]) => type)).toEqual(known.map((record: any) => TYPES[record.type]));
    expect(view.getUint32(4, true)).toBe(packet.header.epoch);
    expect(exactly(view, 8, false)).toBe(packet.header.position);
    expect(nanoseconds(view, 16)).toBe(packet.header.ts_send);
  });

  test("every field is exact", () => {
    for (const [index, [at]] of found(packet).entries()) {
      const record = known[index];
      expect(view.getUint32(at + 4, true)).toBe(record.instrument);
      expect(view.getUint8(at + 3)).toBe(record.flags);
      expect(exactly(view, at + 8, false)).toBe(record.sequence);
      expect(nanoseconds(view, at + 16)).toBe(record.ts_event);
      expect(nanoseconds(view, at + 24)).toBe(record.ts_recv);
      for (const [field, offset] of Object.entries(WORDS[record.type] ?? {})) {
        expect(exactly(view, at + offset), `${record.type} ${field}`).toBe(record[field]);
      }
      compareOther(view, at, record);
    }
  });

  test("text equals the JSON encoding", () => {
    for (const [index, [at]] of found(packet).entries()) {
      const { type, json } = known[index];
      const [px, sz] = exponents.get(known[index].instrument) ?? [0, 0];
      if (json === undefined || type === "definition") continue;
      for (const [field, offset] of Object.entries(WORDS[type] ?? {})) {
        const number = wire.i64(view, at + offset);
        const isSize = field === "volume" || field.endsWith("sz");
        expect(decimal(number, isSize ? sz : px, wire.rest(view, at + offset, number)) || null, `${type} ${field}`).toBe(json[field]);
      }
    }
  });
});

/** Exponents by instrument: the definitions come first in the file. */
const exponents = new Map<number, [number, number]>();
for (const packet of vectors.packets) {
  for (const record of packet.records) {
    if (record.type === "definition") exponents.set(record.instrument, [record.px_exp, record.sz_exp]);
  }
}

function compareOther(view: DataView, at: number, record: any): void {
  if (record.type === "trade") {
    expect(exactly(view, at + 48, false)).toBe(record.trade_id);
    expect(wire.letter(view, at + 56)).toBe(record.side);
  } else if (record.type === "book") {
    const levels = Array.from({ length: wire.levels(view, at) }, (_, index) => {
      const level = at + 40 + index * 24;
      return [exactly(view, level), exactly(view, level + 8), wire.letter(view, level + 16)];
    });
    expect(levels).toEqual(record.levels);
    expect(wire.letter(view, at + 34)).toBe(record.kind);
  } else if (record.type === "gap") {
    expect([exactly(view, at + 32, false), exactly(view, at + 40, false)]).toEqual([
      record.from_sequence,
      record.to_sequence,
    ]);
    expect(wire.letter(view, at + 49)).toBe(record.reason);
  } else if (record.type === "definition") {
    const bytes = view.getUint8(at + 35);
    expect(wire.text(view, at + 64, bytes)).toBe(record.symbol);
    expect(wire.text(view, at + 64 + bytes, view.getUint8(at + 36))).toBe(record.venue);
    expect([view.getInt8(at + 32), view.getInt8(at + 33)]).toEqual([record.px_exp, record.sz_exp]);
  }
}

test.each(vectors.invalid)("$name is refused: $reason", ({ hex }: any) => {
  const read = (): void => new Store(new Outbox(64), 50, silent).ingest(viewOf(hex));
  expect(read).toThrow(wire.WireError);
});

const silent = { status: () => {}, broken: () => {}, rounded: () => {}, known: () => {} };

describe("golden packets through the store", () => {
  test.each(vectors.packets)("columns of $name", (packet: any) => {
    const store = new Store(new Outbox(1024), 1000, silent);
    for (const { name, hex } of vectors.packets) if (/^definitions|texts/.test(name)) store.ingest(viewOf(hex));
    store.take(null);
    const known = packet.records.filter((record: any) => record.type !== "unknown");
    const undefinedRecord = known.find(
      (r: any) => r.instrument > 0 && !exponents.has(r.instrument) && r.type !== "status",
    );
    if (undefinedRecord !== undefined) {
      expect(() => store.ingest(viewOf(packet.hex))).toThrow(/before its definition/);
      return;
    }
    store.ingest(viewOf(packet.hex));
    const { columns, length } = store.outbox.lists[0];
    // The quote with the greatest sequence counts, and of equal ones the first; sequences begin with 1.
    const newest = new Map<string, any>();
    for (const record of known.filter((one: any) => one.type === "quote" && one.sequence !== "0")) {
      const symbol = symbols.get(record.instrument)!;
      if (BigInt(record.sequence) > BigInt(newest.get(symbol)?.sequence ?? 0)) newest.set(symbol, record);
    }
    expect(length).toBe(newest.size);
    for (let index = 0; index < length; index++) {
      const record = newest.get(store.instruments.get(columns.row[index])!.symbol);
      expect(columns.sequence[index]).toBe(Number(record.sequence));
      const fields = { bidPx: "bid_px", bidSz: "bid_sz", askPx: "ask_px", askSz: "ask_sz" };
      for (const [column, field] of Object.entries(fields)) {
        const number = columns[column][index];
        expect(number).toBe(record[field] === null ? NaN : Number(record[field]));
        if (record[field] === null) continue;
        expect(`${BigInt(number) + BigInt(columns[`${column}Rest`][index])}`).toBe(record[field]);
      }
    }
  });
});

const symbols = new Map<number, string>();
for (const packet of vectors.packets) {
  for (const record of packet.records) {
    if (record.type === "definition") symbols.set(record.instrument, record.symbol);
  }
}
