/** A fake server: sockets whose server end is controlled by the test, and builders of packets. */

import { vi } from "vitest";
import { connect } from "../src/index";
import type { Client, ConnectOptions, WebSocketConstructor } from "../src/types";

/** The client's socket of a connection whose server end the test controls. */
export class FakeSocket {
  binaryType = "";
  readyState = 0;
  onopen: ((event: unknown) => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onerror: ((event: unknown) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  /** Requests that were sent and not taken yet. */
  requests: any[] = [];

  constructor(
    readonly url: string,
    readonly protocols: string | string[] | undefined,
  ) {}

  send(text: string): void {
    this.requests.push(JSON.parse(text));
  }

  close(): void {
    this.readyState = 3;
  }

  /** Takes the requests since the last call, without pings. */
  takeRequests(): any[] {
    return this.requests.splice(0).filter(({ op }) => op !== "ping");
  }

  /** Sends a control message of the server. */
  sendControl(message: object): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  packet(records: ArrayBuffer[], options: PacketOptions = {}): void {
    this.onmessage?.({ data: packet(records, options) });
  }

  welcome(epoch = 7, more: object = {}): void {
    this.readyState = 1;
    this.onopen?.({});
    const limits = { symbols: 10_000, requests_per_s: 50 };
    this.sendControl({ type: "welcome", epoch, version: "0.1.0", heartbeat_ms: 1000, limits, ...more });
  }

  /** Answers every subscription and resume, and completes their snapshots with these records. */
  grant(records: ArrayBuffer[] = [], options: PacketOptions & { how?: string; unknown?: string[] } = {}): any[] {
    const requests = this.takeRequests();
    for (const { op, id, conflate_ms } of requests) {
      const type = op === "subscribe" ? "subscribed" : op === "resume" ? "resumed" : "unsubscribed";
      this.sendControl({ type, id, conflate_ms, count: 1, how: "replay", unknown: [], denied: [], ...options });
    }
    this.packet(records, { flags: 5, ...options });
    return requests;
  }

  /** Closes the connection. */
  closeWith(code: number, reason = ""): void {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }
}

export interface PacketOptions {
  flags?: number;
  epoch?: number;
  position?: number;
}

/** The server, with the sockets that its clients have opened. */
export class FakeServer {
  readonly sockets: FakeSocket[] = [];
  readonly WebSocket: WebSocketConstructor;

  constructor() {
    const { sockets } = this;
    this.WebSocket = class extends FakeSocket {
      constructor(url: string, protocols?: string | string[]) {
        super(url, protocols);
        sockets.push(this);
      }
    };
  }

  get last(): FakeSocket {
    return this.sockets.at(-1)!;
  }

  client(options: ConnectOptions = {}): Client {
    return connect({ url: "ws://fake", WebSocket: this.WebSocket, ...options });
  }
}

/** Loads the stream side: from then on a client starts within its call, as tests with a fake clock need. */
async function warm(): Promise<void> {
  const { WebSocket } = new FakeServer();
  const client = connect({ url: "ws://fake", WebSocket });
  while (client.worker === "starting") {
    if (client.connection.phase === "closed") throw new Error(client.connection.reason);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  client.close();
}
await warm();

/** Runs microtasks, and the timers that are due within this time. */
export async function settle(ms = 0): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
}

export function packet(
  records: ArrayBuffer[],
  { flags = 0, epoch = 7, position = 100 }: PacketOptions = {},
): ArrayBuffer {
  const bytes = new Uint8Array(24 + records.reduce((sum, record) => sum + record.byteLength, 0));
  const view = new DataView(bytes.buffer);
  view.setUint8(0, 1);
  view.setUint8(1, flags);
  view.setUint16(2, records.length, true);
  view.setUint32(4, epoch, true);
  view.setBigUint64(8, BigInt(position), true);
  view.setBigUint64(16, BigInt(Math.round(Date.now())) * 1_000_000n, true);
  let at = 24;
  for (const record of records) {
    bytes.set(new Uint8Array(record), at);
    at += record.byteLength;
  }
  return bytes.buffer;
}

/** A record: its header, followed by 64-bit words. */
function record(
  type: number,
  instrument: number,
  sequence: number,
  flags: number,
  words: (number | bigint)[],
): ArrayBuffer {
  const view = new DataView(new ArrayBuffer(32 + words.length * 8));
  view.setUint16(0, view.byteLength / 8, true);
  view.setUint8(2, type);
  view.setUint8(3, flags);
  view.setUint32(4, instrument, true);
  view.setBigUint64(8, BigInt(sequence), true);
  view.setBigUint64(24, BigInt(Math.round(Date.now())) * 1_000_000n, true);
  words.forEach((word, index) => view.setBigInt64(32 + index * 8, BigInt.asIntN(64, BigInt(word)), true));
  return view.buffer;
}

export function quote(
  instrument: number,
  sequence: number,
  bid: number | bigint,
  ask: number | bigint,
  flags = 0x80,
  sizes: [bid: number | bigint, ask: number | bigint] = [1, 2],
): ArrayBuffer {
  return record(1, instrument, sequence, flags, [bid, sizes[0], ask, sizes[1]]);
}

export function trade(
  instrument: number,
  sequence: number,
  px: number | bigint,
  flags = 0x80,
  size: number | bigint = 3,
  id: number | bigint = sequence,
): ArrayBuffer {
  const bytes = record(2, instrument, sequence, flags, [px, size, id, 0]);
  new DataView(bytes).setUint8(56, 66);
  return bytes;
}

/** A ticker: the mantissas in the order of the wire. */
export function ticker(instrument: number, sequence: number, values: (number | bigint)[]): ArrayBuffer {
  return record(3, instrument, sequence, 0x80, values);
}

export function book(
  instrument: number,
  sequence: number,
  kind: "S" | "D",
  levels: [number | bigint, number | bigint, "B" | "A"][],
  flags = 0x80,
): ArrayBuffer {
  const bytes = record(4, instrument, sequence, flags, [0, ...levels.flatMap(([px, sz]) => [px, sz, 0])]);
  const view = new DataView(bytes);
  view.setUint16(32, levels.length, true);
  view.setUint8(34, kind.charCodeAt(0));
  levels.forEach(([, , side], index) => view.setUint8(56 + index * 24, side.charCodeAt(0)));
  return bytes;
}

export function gap(instrument: number, channel: number, from: number, to: number, reason = "O"): ArrayBuffer {
  const bytes = record(18, instrument, 0, 0x80, [from, to, 0]);
  new DataView(bytes).setUint8(48, channel);
  new DataView(bytes).setUint8(49, reason.charCodeAt(0));
  return bytes;
}

export function status(instrument: number, letter: string): ArrayBuffer {
  const bytes = record(19, instrument, 0, 0x80, [0]);
  new DataView(bytes).setUint8(32, letter.charCodeAt(0));
  return bytes;
}

export function definition(instrument: number, symbol: string, pxExp = -2, szExp = -8, venue = ""): ArrayBuffer {
  const name = new TextEncoder().encode(symbol + venue);
  const bytes = new Uint8Array(Math.ceil((64 + name.length) / 8) * 8);
  bytes.set(new Uint8Array(record(16, instrument, 0, 0, [0, -(2n ** 63n), -(2n ** 63n), 0])));
  bytes.set(name, 64);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, bytes.length / 8, true);
  view.setInt8(32, pxExp);
  view.setInt8(33, szExp);
  view.setUint8(34, 84);
  view.setUint8(35, name.length - venue.length);
  view.setUint8(36, venue.length);
  return bytes.buffer;
}
