// @ts-check
/**
 * The page's end of the stream: packets into values, decimals into text, and the life of one WebSocket.
 *
 * What always holds: a price or a size is an exact integer, its mantissa, from the bytes to the decimal text; it never
 * becomes a float on the way. A record of an unknown type is skipped by its length. Bytes that break the layout throw
 * a {@link WireError}; no guess is made about them.
 *
 * It knows nothing of the document, so that it also runs in node. Books and raw payloads are skipped like unknown
 * types: the page does not show them. Cost: one small object per record.
 */

/** The types of record that are read here. */
export const Type = Object.freeze({
  ...{ QUOTE: 1, TRADE: 2, TICKER: 3 },
  ...{ DEFINITION: 16, HEARTBEAT: 17, GAP: 18, STATUS: 19 },
});

/** Record flag: held back on purpose. */
export const DELAYED = 0x08;

const PACKET_HEADER_BYTES = 24;
const RECORD_HEADER_BYTES = 32;

/**
 * An integer of 64 bits: a Number where that is exact, else a BigInt, so that equal values are always of one type.
 * `null` is "not present", which is `i64::MIN` on the wire.
 * @typedef {number | bigint | null} Mantissa
 *
 * @typedef {{ flags: number, count: number, epoch: number, position: bigint, ts_send: bigint }} PacketHeader
 *
 * @typedef {{ bid_px: Mantissa, bid_sz: Mantissa, ask_px: Mantissa, ask_sz: Mantissa }} Quote
 * @typedef {{ px: Mantissa, sz: Mantissa, trade_id: bigint, side: string }} Trade
 * @typedef {{ last_px: Mantissa, open_px: Mantissa, high_px: Mantissa, low_px: Mantissa, volume: Mantissa,
 *             turnover: Mantissa, bid_px: Mantissa, ask_px: Mantissa }} Ticker
 * @typedef {{ px_exp: number, sz_exp: number, status: string, tick_size: Mantissa, lot_size: Mantissa,
 *             symbol: string, venue: string }} Definition
 * @typedef {{ from_sequence: bigint, to_sequence: bigint, channel: number, reason: string }} Gap
 * @typedef {{ status: string }} Status
 *
 * @typedef {{ flags: number, instrument: number, sequence: bigint, ts_event: bigint, ts_recv: bigint }} RecordHeader
 * @typedef {RecordHeader & ({ type: 1, body: Quote } | { type: 2, body: Trade } | { type: 3, body: Ticker }
 *           | { type: 16, body: Definition } | { type: 17, body: null } | { type: 18, body: Gap }
 *           | { type: 19, body: Status })} WireRecord
 */

/** Bytes are not what the protocol says. */
export class WireError extends Error {}

/**
 * Reads the 24 bytes that open a packet.
 * @param {DataView} view
 * @returns {PacketHeader}
 */
export function readPacketHeader(view) {
  if (view.byteLength < PACKET_HEADER_BYTES) {
    throw new WireError(`packet of ${view.byteLength} bytes; its header alone has ${PACKET_HEADER_BYTES}`);
  }
  const version = view.getUint8(0);
  if (version !== 1) throw new WireError(`packet version ${version}; this page reads version 1`);
  return {
    flags: view.getUint8(1),
    count: view.getUint16(2, true),
    epoch: view.getUint32(4, true),
    position: view.getBigUint64(8, true),
    ts_send: view.getBigUint64(16, true),
  };
}

/**
 * Hands every record of a known type to `onRecord`, the oldest first.
 * @param {DataView} view of the whole packet
 * @param {number} count as the packet's header says
 * @param {(record: WireRecord) => void} onRecord
 */
export function readRecords(view, count, onRecord) {
  let at = PACKET_HEADER_BYTES;
  for (let index = 0; index < count; index++) {
    const room = view.byteLength - at;
    const length = room < RECORD_HEADER_BYTES ? 0 : view.getUint16(at, true) * 8;
    if (length < RECORD_HEADER_BYTES || length > room) {
      throw new WireError(`record ${index} of ${count} says ${length} bytes; ${room} are there`);
    }
    const record = readRecord(view, at, length);
    if (record !== null) onRecord(record);
    at += length;
  }
  if (at !== view.byteLength) throw new WireError(`${view.byteLength - at} bytes after the last record`);
}

/**
 * @param {DataView} view
 * @param {number} at where the record starts
 * @param {number} length of the whole record in bytes
 * @returns {WireRecord | null} null for a type that is not known here
 */
function readRecord(view, at, length) {
  const type = view.getUint8(at + 2);
  const layout = LAYOUTS.get(type);
  if (layout === undefined) return null;
  // Fields are only ever appended to a record, so a longer one is read like a short one.
  if (length < layout.bytes) throw new WireError(`record type ${type} of ${length} bytes; it has ${layout.bytes}`);
  return /** @type {WireRecord} */ ({
    type,
    flags: view.getUint8(at + 3),
    instrument: view.getUint32(at + 4, true),
    sequence: view.getBigUint64(at + 8, true),
    ts_event: view.getBigUint64(at + 16, true),
    ts_recv: view.getBigUint64(at + 24, true),
    body: layout.read(view, at, length),
  });
}

/**
 * How long a record of a type is at least, and how its body is read.
 * @type {Map<number, { bytes: number, read: (view: DataView, at: number, length: number) => object | null }>}
 */
const LAYOUTS = new Map();
LAYOUTS.set(Type.QUOTE, { bytes: 64, read: readQuote });
LAYOUTS.set(Type.TRADE, { bytes: 64, read: readTrade });
LAYOUTS.set(Type.TICKER, { bytes: 96, read: readTicker });
LAYOUTS.set(Type.DEFINITION, { bytes: 64, read: readDefinition });
LAYOUTS.set(Type.HEARTBEAT, { bytes: 32, read: () => null });
LAYOUTS.set(Type.GAP, { bytes: 56, read: readGap });
LAYOUTS.set(Type.STATUS, { bytes: 40, read: (view, at) => ({ status: letterAt(view, at + 32) }) });

/** @type {(view: DataView, at: number) => Quote} */
function readQuote(view, at) {
  return {
    bid_px: mantissaAt(view, at + 32),
    bid_sz: mantissaAt(view, at + 40),
    ask_px: mantissaAt(view, at + 48),
    ask_sz: mantissaAt(view, at + 56),
  };
}

/** @type {(view: DataView, at: number) => Trade} */
function readTrade(view, at) {
  return {
    px: mantissaAt(view, at + 32),
    sz: mantissaAt(view, at + 40),
    trade_id: view.getBigUint64(at + 48, true),
    side: letterAt(view, at + 56),
  };
}

/** @type {(view: DataView, at: number) => Ticker} */
function readTicker(view, at) {
  return {
    last_px: mantissaAt(view, at + 32),
    open_px: mantissaAt(view, at + 40),
    high_px: mantissaAt(view, at + 48),
    low_px: mantissaAt(view, at + 56),
    volume: mantissaAt(view, at + 64),
    turnover: mantissaAt(view, at + 72),
    bid_px: mantissaAt(view, at + 80),
    ask_px: mantissaAt(view, at + 88),
  };
}

/** @type {(view: DataView, at: number, length: number) => Definition} */
function readDefinition(view, at, length) {
  const symbolBytes = view.getUint8(at + 35);
  const venueBytes = view.getUint8(at + 36);
  if (64 + symbolBytes + venueBytes > length) throw new WireError(`definition of ${length} bytes cuts its names short`);
  return {
    px_exp: view.getInt8(at + 32),
    sz_exp: view.getInt8(at + 33),
    status: letterAt(view, at + 34),
    tick_size: mantissaAt(view, at + 40),
    lot_size: mantissaAt(view, at + 48),
    symbol: textAt(view, at + 64, symbolBytes),
    venue: textAt(view, at + 64 + symbolBytes, venueBytes),
  };
}

/** @type {(view: DataView, at: number) => Gap} */
function readGap(view, at) {
  return {
    from_sequence: view.getBigUint64(at + 32, true),
    to_sequence: view.getBigUint64(at + 40, true),
    channel: view.getUint8(at + 48),
    reason: letterAt(view, at + 49),
  };
}

/** @type {(view: DataView, at: number) => Mantissa} */
function mantissaAt(view, at) {
  const low = view.getUint32(at, true);
  const high = view.getInt32(at + 4, true);
  // A high word of 21 bits and a sign keeps the whole within ±2^53, where every integer is a Number.
  if (high >= -0x20_0000 && high < 0x20_0000) return high * 0x1_0000_0000 + low;
  return high === -0x8000_0000 && low === 0 ? null : view.getBigInt64(at, true);
}

/** @type {(view: DataView, at: number) => string} */
function letterAt(view, at) {
  return String.fromCharCode(view.getUint8(at));
}

const utf8 = new TextDecoder();

/** @type {(view: DataView, at: number, bytes: number) => string} */
function textAt(view, at, bytes) {
  return utf8.decode(new Uint8Array(view.buffer, view.byteOffset + at, bytes));
}

/** What stands where no value is. */
export const NONE = "–";

/**
 * `mantissa × 10^exponent` with all its decimals, by its digits alone: `(6183763, -2)` is `61837.63`.
 * @param {Mantissa} mantissa
 * @param {number} exponent
 */
export function decimalText(mantissa, exponent) {
  if (mantissa === null) return NONE;
  const sign = mantissa < 0 ? "-" : "";
  const digits = String(mantissa < 0 ? -mantissa : mantissa);
  if (exponent >= 0) return sign + (digits === "0" ? digits : digits + "0".repeat(exponent));
  const padded = digits.padStart(1 - exponent, "0");
  return `${sign}${padded.slice(0, exponent)}.${padded.slice(exponent)}`;
}

const RETRY_FIRST_MS = 500;
const RETRY_MOST_MS = 30_000;
/** A connection that lived so long was a good one: the next loss is retried at once again. */
const SETTLED_MS = 5_000;
/** Silence after which a connection is given up; it may be half open, and TCP alone takes minutes to notice. */
const DEAD_MS = 15_000;

/** What close codes mean to the one who looks at the page. @type {Record<number, string>} */
const CLOSE_REASONS = {
  1001: "server going away",
  1002: "protocol error",
  1006: "connection lost",
  1008: "refused by policy",
  1009: "message too big",
  1011: "server error",
  4001: "credentials expired",
  4002: "too slow to follow",
  4003: "no longer entitled",
};

/**
 * How long to wait before a retry: the first at once, then full jitter below a bound that doubles from 0.5 s to 30 s.
 * @param {number} failures in a row before this one
 * @param {number} chance from 0 to 1
 */
export function retryDelayMs(failures, chance) {
  return failures === 0 ? 0 : chance * Math.min(RETRY_MOST_MS, RETRY_FIRST_MS * 2 ** (failures - 1));
}

/**
 * `reason` says why the last connection ended; `retryAt` is on the clock of `performance.now`.
 * @typedef {{ name: "connecting" | "live" | "stale" | "reconnecting", reason: string, retryAt: number }} State
 *
 * @typedef {object} Handlers
 * @property {(state: State) => void} onState
 * @property {(message: any) => void} onControl a JSON message of the server
 * @property {(packet: DataView) => void} onPacket may throw a {@link WireError}: the connection is then made anew
 */

/** One stream that is kept up: it connects, notices silence, and connects again. */
export class Stream {
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {State} */
  #state = { name: "connecting", reason: "", retryAt: 0 };
  #heartbeatMs = 1000;
  #heardAt = 0;
  #welcomedAt = 0;
  #failures = 0;
  #retryAfterMs = 0;
  #retryTimer = /** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined);

  /**
   * @param {string} url
   * @param {Handlers} handlers
   */
  constructor(url, handlers) {
    this.url = url;
    this.handlers = handlers;
  }

  /** Connects, at once. Call again to cut a wait short. */
  connect() {
    if (this.#socket !== null) return;
    clearTimeout(this.#retryTimer);
    const socket = new WebSocket(this.url, "tickcast.v1");
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => this.#lost(CLOSE_REASONS[event.code] ?? (event.reason || `closed with ${event.code}`));
    this.#socket = socket;
    this.#heardAt = performance.now();
    this.#welcomedAt = 0;
    this.#retryAfterMs = 0;
    this.#enter("connecting", this.#state.reason);
  }

  /** Sends a request, if there is a connection that takes it. @param {object} request */
  send(request) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(request));
  }

  /** Looks at the clock: call it a few times a second. */
  watch() {
    if (this.#socket === null) return;
    const silentMs = performance.now() - this.#heardAt;
    if (silentMs > Math.max(DEAD_MS, 10 * this.#heartbeatMs)) this.#lost("no answer");
    else if (this.#state.name === "live" && silentMs > 3 * this.#heartbeatMs) this.#enter("stale");
  }

  /** @param {string | ArrayBuffer} data */
  #receive(data) {
    this.#heardAt = performance.now();
    if (this.#state.name === "stale") this.#enter("live");
    try {
      if (typeof data !== "string") this.handlers.onPacket(new DataView(data));
      else this.#control(JSON.parse(data));
    } catch (error) {
      if (!(error instanceof WireError || error instanceof SyntaxError)) throw error;
      this.#lost(`unreadable: ${error.message}`);
    }
  }

  /** @param {any} message */
  #control(message) {
    if (message.type === "welcome") {
      this.#heartbeatMs = message.heartbeat_ms ?? this.#heartbeatMs;
      this.#welcomedAt = this.#heardAt;
      this.#enter("live");
    } else if (message.type === "closing") {
      this.#retryAfterMs = message.reconnect_ms ?? 0;
    }
    this.handlers.onControl(message);
  }

  /** @param {string} reason */
  #lost(reason) {
    const socket = this.#socket;
    if (socket === null) return;
    this.#socket = null;
    // The browser may wait long for the closing handshake of a dead peer; nothing more is wanted from this socket.
    socket.onmessage = socket.onclose = null;
    socket.close();
    const welcomed = this.#welcomedAt > 0;
    if (welcomed && performance.now() - this.#welcomedAt > SETTLED_MS) this.#failures = 0;
    const waitMs = Math.max(retryDelayMs(this.#failures++, Math.random()), this.#retryAfterMs);
    this.#retryTimer = setTimeout(() => this.connect(), waitMs);
    // An attempt that failed tells less than the reason why the last good connection ended.
    const why = welcomed ? reason : this.#state.reason || "no connection";
    this.#enter("reconnecting", why, performance.now() + waitMs);
  }

  /** @type {(name: State["name"], reason?: string, retryAt?: number) => void} */
  #enter(name, reason = "", retryAt = 0) {
    this.#state = { name, reason, retryAt };
    this.handlers.onState(this.#state);
  }
}
