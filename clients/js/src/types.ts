/// <reference lib="esnext.disposable" preserve="true" />

/**
 * The public API of tickcast.
 *
 * Terms: a **row** is the index of an instrument in every column; a symbol keeps its row over reconnects and server
 * restarts. A **mantissa** is an exact integer: a price is `mantissa × 10^pxExp` of its instrument, a size
 * `mantissa × 10^szExp`. In number columns `NaN` means that there is no value. A mantissa beyond 2^53 may not fit into
 * a number: its column has the nearest number, and the column with `Rest` after its name what the exact mantissa is
 * above that, so that `BigInt(bidSz[row]) + BigInt(bidSzRest[row])` is exact. A rest other than 0 marks the number
 * as inexact. Times are whole milliseconds since the Unix epoch, with the remaining nanoseconds (0 to 999,999) in a field of their
 * own.
 */

import type { Authenticated, Connection, TokenRequest } from "./connection-types";

export type * from "./connection-types";

/** The channels: best bid and offer, trades, 24 h statistics, levels of the book, opaque bytes. */
export type Channel = "quote" | "trade" | "ticker" | "book" | "raw";

/**
 * Whether an instrument's values are current.
 *
 * * `LIVE`: the values are the server's newest.
 * * `STALE`: the connection is lost or silent, the server reports its source as stale, or no subscription covers the
 *   instrument any more.
 * * `RESYNCING`: after a reconnect or a sequence gap, and not all values have come again.
 * * `UNKNOWN`: the server has restarted, and has no such instrument yet: its publisher or feed has not come back. The values
 *   are those from before; once it is defined again, they are replaced.
 * * `HALTED`, `ENDED`: reported by the venue or the source; the values are the last ones.
 */
export type InstrumentState = "LIVE" | "STALE" | "RESYNCING" | "UNKNOWN" | "HALTED" | "ENDED";

/** Settings of {@link connect}. */
export interface ConnectOptions {
  /**
   * The server: a `ws:`, `wss:`, `http:` or `https:` URL, or a path. The path is `/v1/stream` where the URL has none.
   * A function is called before each attempt, so that it can put a fresh token into the query. Default: the server
   * that the script came from.
   */
  url?: string | URL | (() => string | Promise<string>);
  /**
   * A token or an API key, or a function for one: called for each connection, before a token expires, and after one was
   * refused. One call at a time. An empty text means none. The token is sent as a message, never in the URL.
   */
  token?: string | ((why: TokenRequest) => string | null | undefined | Promise<string | null | undefined>);
  /**
   * The conflation interval of subscriptions without one of their own, 0 to 1000: in each interval at most one value
   * per instrument and state channel. Default 100.
   */
  conflateMs?: number;
  /** The shortest interval while the page is hidden; null for no difference. Default 1000. */
  hiddenConflateMs?: number | null;
  /**
   * Where socket and decoder run. `auto` (default): in a worker, or on the page's thread where no worker starts.
   * `false`: on the page's thread. A function creates the worker: for bundlers with their own way to import one.
   */
  worker?: "auto" | false | (() => Worker);
  /** Closes the client when it aborts. */
  signal?: AbortSignal;
  /**
   * When changes are delivered. `frame` (default where there is `requestAnimationFrame`): once per animation frame.
   * `immediate` (default elsewhere): as soon as they come.
   */
  pull?: "frame" | "immediate";
  /** Delivered levels of each side of a book; the client keeps all. Default 50; Infinity for all. */
  bookDepth?: number;
  /** Trades kept until they are delivered, as in a hidden page; beyond it the oldest are dropped. Default 10,000. */
  tradeBacklog?: number;
  /** The age of undelivered changes beyond which there is a `lag` event, at most one per second. Default 1000. */
  lagMs?: number;
  /** A constructor with the browser's WebSocket interface, as of `ws` for Node 20. The client then uses no worker. */
  WebSocket?: WebSocketConstructor;
  /** Delays of reconnecting, for tests and special needs. */
  reconnect?: ReconnectOptions;
}

/**
 * After a loss the first attempt is immediate, and each later one after a random time below half of the outage so far:
 * a server that was away for ten seconds is found again within five. {@link Connection.retryAt} has its time.
 */
export interface ReconnectOptions {
  /** The least bound. Default 500. */
  firstMs?: number;
  /** The greatest bound. Default 30,000. */
  mostMs?: number;
  /** A stream that was live for this long ends the outage. Default 5000. */
  settledMs?: number;
}

/** The used part of a WebSocket. */
export interface WebSocketLike {
  binaryType: string;
  readonly readyState: number;
  readonly bufferedAmount?: number;
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

/** A constructor of a {@link WebSocketLike}. */
export type WebSocketConstructor = new (url: string, protocols?: string | string[]) => WebSocketLike;

/** The parameters of a subscription. */
export interface SubscribeOptions {
  /** Names, and patterns with one `*` at the end, which also cover instruments that are defined later. */
  symbols: string | readonly string[];
  /** Default `["quote"]`. */
  channels?: Channel | readonly Channel[];
  /** 0 = every update; otherwise rounded up to 10, 50, 100, 250, 500 or 1000. Default: the client's interval. */
  conflateMs?: number | null;
  /** Ends the subscription when it aborts. */
  signal?: AbortSignal;
}

/** The server's answer to a subscription. */
export interface SubscriptionResult {
  /** Names that no instrument has yet: their records follow once the server has a definition. */
  readonly unknown: readonly string[];
  /** Names and patterns of which this client gets nothing. */
  readonly denied: readonly string[];
  /** Those of which it gets fewer channels, or fewer symbols of a pattern, than it has asked for. */
  readonly limited: readonly string[];
  /** Of both, those to which it has a right to delayed data. */
  readonly delayed: readonly string[];
  /** The granted interval; where several subscriptions share an instrument, their shortest. */
  readonly conflateMs: number;
}

/**
 * A subscription to symbols and channels. Subscriptions may overlap: each channel of a symbol is requested from the
 * server once, at the shortest interval among them, and unsubscribed with the last of them. Changes within one
 * microtask are sent together.
 */
export interface Subscription extends SubscriptionResult {
  /** Assign another list to change the subscription: only the difference is requested from the server. */
  symbols: readonly string[];
  readonly channels: readonly Channel[];
  /** Its own interval, null for the client's; assign to change it live. */
  wantedMs: number | null;
  /**
   * Resolves when the server has answered and the snapshot is complete. Assigning `symbols` or `wantedMs` replaces the
   * promise; the former one, if still pending, resolves with it. Rejects if the subscription or the client ends first.
   */
  readonly ready: Promise<SubscriptionResult>;
  readonly closed: boolean;
  close(): void;
  [Symbol.dispose](): void;
}

/**
 * The directory of instruments. An instrument that the server has released is no longer in it; one that is defined
 * again under the same symbol gets another row.
 */
export interface Instruments {
  /** The number of rows, which are 0 to `length - 1`, with those of released instruments. */
  readonly length: number;
  /** The row of a symbol; -1 for an unknown one. */
  row(symbol: string): number;
  /** `""` for an unknown row, and for that of a released instrument. */
  symbol(row: number): string;
  venue(row: number): string;
  readonly pxExp: ArrayLike<number>;
  readonly szExp: ArrayLike<number>;
  /** Mantissas of the smallest steps; NaN where not stated. */
  readonly tickSize: ArrayLike<number>;
  readonly lotSize: ArrayLike<number>;
  /** By its definition: `T` trading, `H` halted, `C` closed. */
  status(row: number): string;
  [Symbol.iterator](): IterableIterator<Instrument>;
}

/** One instrument of the directory. */
export interface Instrument {
  readonly row: number;
  readonly symbol: string;
  readonly venue: string;
  readonly pxExp: number;
  readonly szExp: number;
  readonly tickSize: number;
  readonly lotSize: number;
  readonly status: string;
}

/** Columns of every channel, by row. */
export interface StampColumns {
  /** From 1, per instrument and channel; 0 where no value has come. */
  readonly sequence: Float64Array;
  /** See {@link FLAGS}. */
  readonly flags: Uint8Array;
  /** Venue time: whole ms since the Unix epoch, 0 where the venue gave none, and the remaining nanoseconds. */
  readonly eventMs: Float64Array;
  readonly eventNs: Uint32Array;
  /** When the server received it. */
  readonly recvMs: Float64Array;
  readonly recvNs: Uint32Array;
}

/** Best bids and offers by row, as mantissas. */
export interface QuoteColumns extends StampColumns {
  readonly bidPx: Float64Array;
  readonly bidSz: Float64Array;
  readonly askPx: Float64Array;
  readonly askSz: Float64Array;
  readonly bidPxRest: Int16Array;
  readonly bidSzRest: Int16Array;
  readonly askPxRest: Int16Array;
  readonly askSzRest: Int16Array;
}

/** 24 h statistics by row, as mantissas: `volume` at the size exponent, `turnover` at the price exponent. */
export interface TickerColumns extends StampColumns {
  readonly lastPx: Float64Array;
  readonly openPx: Float64Array;
  readonly highPx: Float64Array;
  readonly lowPx: Float64Array;
  readonly volume: Float64Array;
  readonly turnover: Float64Array;
  readonly bidPx: Float64Array;
  readonly askPx: Float64Array;
  readonly lastPxRest: Int16Array;
  readonly openPxRest: Int16Array;
  readonly highPxRest: Int16Array;
  readonly lowPxRest: Int16Array;
  readonly volumeRest: Int16Array;
  readonly turnoverRest: Int16Array;
  readonly bidPxRest: Int16Array;
  readonly askPxRest: Int16Array;
}

/** Trades, as mantissas: the newest by row, or the trades of a frame in order. */
export interface TradeColumns extends StampColumns {
  readonly px: Float64Array;
  readonly sz: Float64Array;
  readonly tradeId: Float64Array;
  readonly pxRest: Int16Array;
  readonly szRest: Int16Array;
  readonly tradeIdRest: Int16Array;
  /** The aggressor's side as a character code: {@link SIDE}. */
  readonly side: Uint8Array;
}

/** The trades of a frame, oldest first. Valid until the callback returns. */
export interface TradeList extends TradeColumns {
  readonly length: number;
  readonly row: Uint32Array;
  /** Trades dropped since the last frame because they exceeded the backlog. */
  readonly dropped: number;
}

/** One side of a book, best first, as mantissas. */
export interface Side {
  readonly length: number;
  readonly px: Float64Array;
  readonly sz: Float64Array;
  /** What exact sizes are above those of `sz`: other than 0 only for sizes beyond 2^53. */
  readonly szRest: Int16Array;
}

/** A book at one frame; a change makes a new object. */
export interface Book {
  readonly row: number;
  readonly bids: Side;
  readonly asks: Side;
  /** All levels of the side, of which {@link ConnectOptions.bookDepth} are delivered. */
  readonly bidLevels: number;
  readonly askLevels: number;
  readonly sequence: number;
  readonly eventMs: number;
  readonly recvMs: number;
  /**
   * The book may be wrong: the client, the server or the source is rebuilding it, or a price was beyond 2^53 and no
   * number has it exactly, so that two levels may be one. The latter lasts until a snapshot whose prices are all exact.
   */
  readonly suspect: boolean;
  /** A number of the book is not exact: a price, or a size with a rest in {@link Side.szRest}. */
  readonly inexact: boolean;
}

/** A sequence gap. */
export interface Gap {
  readonly row: number;
  readonly symbol: string;
  readonly channel: Channel;
  /** The first and last missing sequence; both 0 after a restart of the server, where they are not known. */
  readonly from: number;
  readonly to: number;
  /**
   * `slow`: the client was too slow for the server's history. `overrun`: the server was too slow for its own. `feed`:
   * reported by the source. `resync`: missed while the connection was lost, for longer than the server's history.
   * `order`: found by the client in the sequences, without an announcement by the server.
   */
  readonly reason: "slow" | "overrun" | "feed" | "resync" | "order";
}

/** A record of the `raw` channel. */
export interface RawRecord {
  readonly row: number;
  readonly sequence: number;
  readonly recvMs: number;
  readonly payload: Uint8Array;
}

/** The changes since the last frame. Valid until the callback returns. */
export interface Frame {
  /** The time of the animation frame, on the clock of `performance.now()`. */
  readonly now: number;
  /** Rows that have changed, each once. */
  readonly changed: Uint32Array;
  /** The changes of each of them: bits of {@link CHANGED}. */
  readonly what: Uint8Array;
  readonly trades: TradeList;
  readonly gaps: readonly Gap[];
  readonly raw: readonly RawRecord[];
}

/** Bits of {@link Frame.what}. */
export const CHANGED = { quote: 1, trade: 2, ticker: 4, book: 8, state: 32, instrument: 64 } as const;

/** Bits of `flags` columns. */
export const FLAGS = { last: 0x80, snapshot: 0x20, conflated: 0x10, delayed: 0x08, maybeBadBook: 0x04, computed: 0x02 } as const;

/** Values of `side` columns. */
export const SIDE = { buy: 66, sell: 83, unknown: 78 } as const;

/** The common part of every {@link Update}. Updates are small objects of their own, and stay valid. */
export interface UpdateBase {
  readonly row: number;
  readonly symbol: string;
  readonly sequence: number;
  readonly flags: number;
  readonly eventMs: number;
  readonly eventNs: number;
  readonly recvMs: number;
  readonly recvNs: number;
  /** A mantissa is beyond 2^53, and the number is the nearest one. The decimal text is exact all the same. */
  readonly inexact: boolean;
}

/** A quote. `bid`, `bidSize`, `ask` and `askSize` are decimal text, `""` where there is none; the rest mantissas. */
export interface QuoteUpdate extends UpdateBase {
  readonly channel: "quote";
  readonly bidPx: number;
  readonly bidSz: number;
  readonly askPx: number;
  readonly askSz: number;
  readonly bid: string;
  readonly bidSize: string;
  readonly ask: string;
  readonly askSize: string;
}

/** A trade. `price` and `size` are decimal text, and so is `id`, the exact `tradeId`. */
export interface TradeUpdate extends UpdateBase {
  readonly channel: "trade";
  readonly px: number;
  readonly sz: number;
  readonly tradeId: number;
  readonly side: "buy" | "sell" | "unknown";
  readonly price: string;
  readonly size: string;
  readonly id: string;
}

/** 24 h statistics. `last`, `open`, `high`, `low`, `volumeText` and `turnoverText` are decimal text. */
export interface TickerUpdate extends UpdateBase {
  readonly channel: "ticker";
  readonly lastPx: number;
  readonly openPx: number;
  readonly highPx: number;
  readonly lowPx: number;
  readonly volume: number;
  readonly turnover: number;
  readonly bidPx: number;
  readonly askPx: number;
  readonly last: string;
  readonly open: string;
  readonly high: string;
  readonly low: string;
  readonly volumeText: string;
  readonly turnoverText: string;
}

/** A book has changed. */
export interface BookUpdate {
  readonly channel: "book";
  readonly row: number;
  readonly symbol: string;
  readonly book: Book;
}

/** A record of the `raw` channel, with its symbol. */
export interface RawUpdate extends RawRecord {
  readonly channel: "raw";
  readonly symbol: string;
}

/** The updates of {@link Client.onUpdate} and {@link Client.updates}, distinguished by `channel`. */
export type Update = QuoteUpdate | TradeUpdate | TickerUpdate | BookUpdate | RawUpdate;

/** The updates of these channels. */
export type UpdateOf<C extends Channel> = Extract<Update, { channel: C }>;

/** {@link SubscribeOptions} whose channels decide the type of the updates. */
export interface UpdateOptions<C extends Channel = Channel> extends SubscribeOptions {
  channels?: C | readonly C[];
}

/**
 * An error that no promise or answer carries. `code` is one of:
 *
 * * `refused`: the server refused a request, with `message`: a mistake in the program.
 * * `unknown_symbol`, `denied`: the server has no such `symbols`, or does not give them to this client.
 * * `limited`, `delayed`: it gives only a part of them to this client, or the client's right is to delayed data.
 * * `token`: the application's function had no token, or the server did not accept it. The client asks again later.
 * * `origin`: the server does not admit pages of this page's origin; `message` has the flag that admits them. The client
 *   tries again, and reports it once for an outage. It also writes it to the console.
 * * `protocol`: the server's bytes break the layout; the client reconnects.
 * * `inexact`: a value beyond 2^53 is the nearest number in its column, and the column of rests has its rest. Reported
 *   once for each symbol and channel.
 * * `closed`: the connection has ended for good.
 */
export interface ClientError {
  readonly code:
    | "refused"
    | "unknown_symbol"
    | "denied"
    | "limited"
    | "delayed"
    | "token"
    | "origin"
    | "protocol"
    | "inexact"
    | "closed";
  readonly message: string;
  readonly symbols: readonly string[];
}

/** The value of a `lag` event. */
export interface Lag {
  /** The age of the oldest undelivered change. */
  readonly lagMs: number;
  /** Trades dropped since the last event. */
  readonly dropped: number;
}

/** Events of {@link Client.on}. */
export interface ClientEvents {
  connection: Connection;
  authenticated: Authenticated;
  state: { readonly row: number; readonly symbol: string; readonly state: InstrumentState };
  gap: Gap;
  error: ClientError;
  lag: Lag;
  /**
   * An instrument was defined, or its definition was sent again, perhaps with another venue, tick or lot size, or other
   * exponents. Those change its mantissas: the client drops quote, ticker and book, which the server sends again, and
   * scales the trades that it has.
   */
  instrument: Instrument;
  /**
   * The server has released an ended instrument, after its last values. It is no longer in {@link Client.instruments},
   * and its row is not used again.
   */
  released: { readonly row: number; readonly symbol: string };
}

/** Figures for a status bar. Times are in ms, NaN before the first measurement. */
export interface Stats {
  /** The shortest round trip of the last pings. */
  readonly rttMs: number;
  /** The server's clock minus this one, estimated by the quickest ping. */
  readonly clockOffsetMs: number;
  /** From the server's `ts_send` to the frame with the packet's values: over the last 10 s, at most 4,096 samples. */
  readonly latencyP50Ms: number;
  readonly latencyP99Ms: number;
  /** The time from receiving the oldest change of the last frame to that frame. */
  readonly lagMs: number;
  /** Over the last second: messages, records, of these flagged CONFLATED, and bytes. */
  readonly messagesPerSecond: number;
  readonly updatesPerSecond: number;
  readonly conflatedPerSecond: number;
  readonly bytesPerSecond: number;
  /** Since the start. */
  readonly messages: number;
  readonly updates: number;
  readonly conflated: number;
  readonly bytes: number;
  readonly gaps: number;
  readonly reconnects: number;
  readonly tradesDropped: number;
  /** Animation frames with changes. */
  readonly frames: number;
}

/** Options of listeners. */
export interface ListenOptions {
  /** Removes the listener when it aborts. */
  signal?: AbortSignal;
}

/** A connection to a tickcast server, which reconnects until it is closed. */
export interface Client {
  readonly connection: Connection;
  /** Where socket and decoder run: in a `module`, `blob` or `custom` worker, or in `none`; `starting` at first. */
  readonly worker: "starting" | "module" | "blob" | "custom" | "none";
  /** The interval of all subscriptions without one of their own; assign to change it live. */
  conflateMs: number;
  /** True while the interval of hidden pages is in effect. */
  readonly hidden: boolean;

  /** Subscribes; values come in the columns, in frames and in updates. */
  subscribe(options: SubscribeOptions): Subscription;
  /** Calls back with the changes, at most once per animation frame. Returns a function that ends it. */
  onFrame(callback: (frame: Frame) => void, options?: ListenOptions): () => void;
  /**
   * Subscribes, and calls back with an object for each change of state and for each trade. For few symbols: unlike the
   * columns it allocates objects. Closing the returned subscription ends both.
   */
  onUpdate<C extends Channel = "quote">(
    options: UpdateOptions<C>,
    callback: (update: UpdateOf<C>) => void,
  ): Subscription;
  /** The same as a loop. A slow loop gets the newest value of each state, and trades up to the backlog. */
  updates<C extends Channel = "quote">(options: UpdateOptions<C>): AsyncIterableIterator<UpdateOf<C>>;
  /** Every trade of these symbols, in order. */
  trades(symbols: string | readonly string[], options?: ListenOptions): AsyncIterableIterator<TradeUpdate>;
  on<E extends keyof ClientEvents>(
    event: E,
    callback: (value: ClientEvents[E]) => void,
    options?: ListenOptions,
  ): () => void;

  readonly instruments: Instruments;
  readonly quotes: QuoteColumns;
  readonly tickers: TickerColumns;
  /** The newest trade of each row. */
  readonly lastTrades: TradeColumns;
  /** The book of an instrument; undefined before the first one. */
  book(instrument: number | string): Book | undefined;
  state(instrument: number | string): InstrumentState;

  /**
   * `mantissa × 10^pxExp` of the row as exact text with all its decimals; `""` for NaN and null. `rest`, from the
   * column of rests, makes it exact beyond 2^53.
   */
  format(row: number, mantissa: number | bigint | null, rest?: number): string;
  /** The same at the size exponent. */
  formatSize(row: number, mantissa: number | bigint | null, rest?: number): string;
  /** `mantissa × 10^pxExp` as the nearest number, for charts. */
  price(row: number, mantissa: number): number;
  size(row: number, mantissa: number): number;
  /** The exact mantissa of a column's value as a BigInt, also beyond 2^53; null where there is none. */
  exact(channel: "quote", row: number, field: QuoteField): bigint | null;
  exact(channel: "ticker", row: number, field: TickerField): bigint | null;
  exact(channel: "trade", row: number, field: TradeField): bigint | null;

  readonly stats: Stats;
  /**
   * A request to the server's HTTP API with the client's token: `client.fetch("/v1/snapshot/BTC-USD")`. A URL of another
   * server is requested without it.
   */
  fetch(target: string | URL, init?: RequestInit): Promise<Response>;
  /**
   * Connects at once: instead of at {@link Connection.retryAt} while `waiting`, on a new connection while `stale`, again
   * while `idle`. The next attempts follow soon. Without effect while `connecting` or `live`, and once `closed`.
   */
  reconnect(): void;
  /** Resolves when the client has ended; `reason` says why. */
  readonly closed: Promise<Connection>;
  close(): void;
  [Symbol.dispose](): void;
}

/** Number columns of a quote. */
export type QuoteField = "bidPx" | "bidSz" | "askPx" | "askSz";
/** Number columns of a ticker. */
export type TickerField = "lastPx" | "openPx" | "highPx" | "lowPx" | "volume" | "turnover" | "bidPx" | "askPx";
/** Number columns of a newest trade. */
export type TradeField = "px" | "sz" | "tradeId";

/** Connects to a server, and reconnects until the client is closed. */
export type Connect = (options?: ConnectOptions | string | URL) => Client;
