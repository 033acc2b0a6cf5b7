/**
 * The layout of packets and records, read in place.
 *
 * What always holds: an integer of 64 bits becomes the nearest Number, which is exact within ±2^53, and {@link rest}
 * is what the exact integer is above it. An absent value (`i64::MIN`) reads as NaN. Bytes that break the layout throw a
 * {@link WireError}. A record of an unknown type is skipped by its length, and of a record that is longer than its
 * layout the known part is read: later versions only append fields.
 */

/** Types of records. Those of channels are their index in {@link CHANNELS} plus one. */
export const QUOTE = 1;
export const TRADE = 2;
export const TICKER = 3;
export const BOOK = 4;
export const RAW = 5;
export const DEFINITION = 16;
export const HEARTBEAT = 17;
export const GAP = 18;
export const STATUS = 19;

/** Channel names in the order of their record types, from 1. */
export const CHANNELS = ["quote", "trade", "ticker", "book", "raw"] as const;

/** Flags of a packet. */
export const PACKET_SNAPSHOT = 1;
export const PACKET_REPLAY = 2;
export const CAUGHT_UP = 4;

/** Flags of a record. */
export const SNAPSHOT = 0x20;
export const CONFLATED = 0x10;
export const MAYBE_BAD_BOOK = 0x04;

/** The letters of a Book record that the client reads. */
export const enum BookAction {
  Snapshot = "S",
}
export const enum LevelSide {
  Bid = "B",
}

/** Bytes of a packet's header. */
export const PACKET_BYTES = 24;
const RECORD_BYTES = 32;
const LEVEL_BYTES = 24;

/** The least bytes of each known type. */
const BYTES_MIN: Record<number, number | undefined> = {
  // Quote, trade, ticker, book, raw;
  ...{ 1: 64, 2: 64, 3: 96, 4: 40, 5: 40 },
  // definition, heartbeat, gap, status.
  ...{ 16: 64, 17: 32, 18: 56, 19: 40 },
};

/** The bytes break the layout of the protocol. */
export class WireError extends Error {}

/** Calls back with the offset of every record of a known type, oldest first. Throws a {@link WireError}. */
export function eachRecord(view: DataView, each: (at: number, type: number) => void): void {
  if (view.byteLength < PACKET_BYTES || view.getUint8(0) !== 1) throw new WireError("not a packet of version 1");
  let at = PACKET_BYTES;
  for (let left = view.getUint16(2, true); left > 0; left--) {
    const rest = view.byteLength - at;
    const bytes = rest < RECORD_BYTES ? 0 : view.getUint16(at, true) * 8;
    const type = bytes && view.getUint8(at + 2);
    const least = BYTES_MIN[type] ?? 0;
    if (bytes < RECORD_BYTES || bytes > rest || bytes < least || bytes < bodyBytes(view, at, type)) {
      throw new WireError(`record of type ${type} is cut short`);
    }
    if (least > 0) each(at, type);
    at += bytes;
  }
  if (at !== view.byteLength) throw new WireError("bytes after the last record");
}

/** The least bytes of a record with variable parts, by the lengths that it states. */
function bodyBytes(view: DataView, at: number, type: number): number {
  if (type === BOOK) return 40 + levels(view, at) * LEVEL_BYTES;
  if (type === RAW) return 40 + view.getUint32(at + 32, true);
  return type === DEFINITION ? 64 + view.getUint8(at + 35) + view.getUint8(at + 36) : 0;
}

/** The number nearest to a signed integer; NaN where absent. */
export function i64(view: DataView, at: number): number {
  const high = view.getInt32(at + 4, true);
  const low = view.getUint32(at, true);
  // The product is exact: only the sum rounds.
  return high === -0x80000000 && !low ? NaN : high * 2 ** 32 + low;
}

/** The number nearest to an unsigned integer. */
export function u64(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}

/** Sequences of a server stay far below: a million records a second take nine years to get there. */
const SEQUENCE_LIMIT = 2 ** 48;

/** A sequence. One that is not plausible would make all later records look old. Throws a {@link WireError}. */
export function sequence(view: DataView, at: number): number {
  const number = u64(view, at);
  if (number >= SEQUENCE_LIMIT) throw new WireError(`sequence ${number}: expected less than 2^48`);
  return number;
}

/** The exact integer minus the nearest number: 0 within ±2^53, at most 1024 beyond. */
export function rest(view: DataView, at: number, nearest: number, signed = true): number {
  if (!(Math.abs(nearest) >= 2 ** 53)) return 0;
  return Number((signed ? view.getBigInt64(at, true) : view.getBigUint64(at, true)) - BigInt(nearest));
}

/** Whole milliseconds of a time in nanoseconds, exactly. */
export function wholeMs(view: DataView, at: number): number {
  const rest = restOf(view, at);
  return view.getUint32(at + 4, true) * 4294 + (rest - (rest % 1e6)) / 1e6;
}

/** The nanoseconds beyond {@link wholeMs}, 0 to 999,999. */
export function restNs(view: DataView, at: number): number {
  return restOf(view, at) % 1e6;
}

/** 2^32 ns are 4294 ms and 967296 ns: the time without those milliseconds, below 2^53. */
function restOf(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 967296 + view.getUint32(at, true);
}

/** Levels of a Book record. */
export function levels(view: DataView, at: number): number {
  return view.getUint16(at + 32, true);
}

export function letter(view: DataView, at: number): string {
  return String.fromCharCode(view.getUint8(at));
}

export function text(view: DataView, at: number, bytes: number): string {
  try {
    const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    return utf8.decode(new Uint8Array(view.buffer, view.byteOffset + at, bytes));
  } catch {
    throw new WireError("a name is not UTF-8");
  }
}

/** A time in milliseconds with fractions. */
export function ms(view: DataView, at: number): number {
  return wholeMs(view, at) + restNs(view, at) / 1e6;
}
