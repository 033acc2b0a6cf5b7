/**
 * The public API of tickcast: what an application sees.
 *
 * Words: a **row** is an instrument's place in every column, given to its symbol once and kept over reconnects and
 * server restarts. A **mantissa** is an exact integer: a price is `mantissa × 10^pxExp` of its instrument, a size
 * `mantissa × 10^szExp`. In number columns `NaN` means that the server gave no value, and `±Infinity` that the value
 * is there and does not fit into a number exactly (beyond 2^53): {@link Client.exact} has it as a BigInt. Times are
 * milliseconds since the Unix epoch as whole numbers, with the remaining nanoseconds (0 to 999,999) beside them.
 */

/** What can be subscribed to: best bid and offer, trades, 24 h statistics, the book's levels, opaque bytes. */
export type Channel = "quote" | "trade" | "ticker" | "book" | "raw";

/**
 * How far an instrument's values can be trusted.
 *
 * * `LIVE`: as new as the server has them.
 * * `STALE`: the connection is lost or silent, the server says that the source is, or nothing is subscribed any more.
 * * `RESYNCING`: the connection is back, or a hole was found, and the values are not all here again.
 * * `HALTED`, `ENDED`: the venue says so; values are the last there were.
 */
export type InstrumentState = "LIVE" | "STALE" | "RESYNCING" | "HALTED" | "ENDED";

/**
 * Where the connection stands.
 *
 * * `connecting`: a socket is being opened.
 * * `live`: the server has greeted us, and is heard.
 * * `stale`: open, but nothing came for three heartbeats; a connection that stays so is made anew.
 * * `waiting`: lost; the next try is at {@link Connection.retryAt}.
 * * `idle`: the server closed a connection on which nothing was subscribed; the next subscription connects again.
 * * `closed`: the end. By {@link Client.close}, by the signal, or because trying again would be wrong (see `reason`).
 */
export type ConnectionPhase = "connecting" | "live" | "stale" | "waiting" | "idle" | "closed";

/** The connection, as {@link Client.connection} and the `connection` event tell it. */
export interface Connection {
  readonly phase: ConnectionPhase;
  /** Why the last connection ended, in words for a status bar; empty while all is well. */
  readonly reason: string;
  /** The close code or HTTP status behind the reason; 0 where there was none. */
  readonly code: number;
  /** Attempts since the stream was last live, this one included. */
  readonly attempt: number;
  /** When the next attempt is made, ms since the Unix epoch; 0 where none is planned. */
  readonly retryAt: number;
  /** The server's epoch; another one means that it has started anew. 0 before the first welcome. */
  readonly epoch: number;
  /** The server's version. */
  readonly version: string;
  /**
   * How the present connection went on: `fresh` where nothing was there to go on from, `pending` until the server has
   * said it, from history without a hole, or with a snapshot (in part is enough).
   */
  readonly resumed: "fresh" | "pending" | "replay" | "snapshot";
}

/** Settings of {@link connect}. */
export interface ConnectOptions {
  /**
   * The server: `ws:`, `wss:`, `http:` or `https:` URL, or a path. `/v1/stream` where it names no path. A function is
   * asked before each attempt, so that it can bring a fresh token in the query. Default: where the script came from.
   */
  url?: string | URL | (() => string | Promise<string>);
  /** The interval of subscriptions that name none: at most one value per instrument and state channel in it. 100. */
  conflateMs?: number;
  /** The least interval while the page is hidden; null leaves hidden pages alone. Default 1000. */
  hiddenConflateMs?: number | null;
  /**
   * Where socket and decoder live. `auto` (default): in a worker, on the page's own thread where none can be had.
   * `false`: on the page's thread. A function makes the worker: for bundlers with a way of their own to import one.
   */
  worker?: "auto" | false | (() => Worker);
  /** Closes the client when it aborts. */
  signal?: AbortSignal;
  /**
   * When changes are handed over. `frame` (default where there is `requestAnimationFrame`): once per animation frame.
   * `immediate` (default elsewhere): as soon as something has come.
   */
  pull?: "frame" | "immediate";
  /** Levels of each side of a book that are handed over; more are kept. Default 50; Infinity for all. */
  bookDepth?: number;
  /** Trades that wait at most where nobody pulls, such as in a hidden page; the oldest go first. Default 10,000. */
  tradeBacklog?: number;
  /** Undisplayed changes older than this make a `lag` event, at most one a second. Default 1000. */
  lagMs?: number;
  /** A constructor with the interface of the browser's WebSocket, for Node 20 (`ws` has one). Runs without worker. */
  WebSocket?: WebSocketConstructor;
  /** Limits of reconnecting, for tests and special needs. */
  reconnect?: ReconnectOptions;
}

/** After a loss the first try is immediate, and each later one random between 0 and a bound that doubles. */
export interface ReconnectOptions {
  /** The first bound. Default 500. */
  firstMs?: number;
  /** The last bound. Default 30,000. */
  mostMs?: number;
  /** A stream that was live for so long starts from the beginning again. Default 5000. */
  settledMs?: number;
}

/** What is used of a WebSocket. */
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

/** What makes a {@link WebSocketLike}. */
export type WebSocketConstructor = new (url: string, protocols?: string | string[]) => WebSocketLike;

/** What to subscribe to. */
export interface SubscribeOptions {
  /** Names, and patterns with one `*` at the end, which also cover instruments that appear later. */
  symbols: string | readonly string[];
  /** Default `["quote"]`. */
  channels?: Channel | readonly Channel[];
  /** 0 = every update; otherwise rounded up to 10, 50, 100, 250, 500 or 1000. Default: that of the client. */
  conflateMs?: number | null;
  /** Ends the subscription when it aborts. */
  signal?: AbortSignal;
}

/** What the server made of a subscription. */
export interface SubscriptionResult {
  /** Names that no instrument has yet; they are asked for again from time to time. */
  readonly unknown: readonly string[];
  /** Names that this client may not have. */
  readonly denied: readonly string[];
  /** The interval that was granted; where several subscriptions share an instrument, the shortest of theirs. */
  readonly conflateMs: number;
}

/**
 * An interest in symbols and channels. Several may overlap: each symbol and channel is asked of the server once, at the
 * shortest interval anybody wants, and given back when the last subscription for it goes. All that is done within one
 * microtask travels together.
 */
export interface Subscription extends SubscriptionResult {
  /** What is subscribed. Assign another list to change it: only the difference is asked of the server. */
  symbols: readonly string[];
  readonly channels: readonly Channel[];
  /** The interval that is wanted, null for the client's; assign to change it live. */
  wantedMs: number | null;
  /**
   * Once the server has answered and its snapshot is here. A promise that is new whenever `symbols` or `wantedMs` is
   * assigned; the one before it, where it waits yet, goes with it. Rejects where the client ends before.
   */
  readonly ready: Promise<SubscriptionResult>;
  readonly closed: boolean;
  close(): void;
  [Symbol.dispose](): void;
}

/** The directory: what is known of each row. */
export interface Instruments {
  /** Rows there are; they go from 0 to `length - 1`. */
  readonly length: number;
  /** The row of a symbol, -1 where none is known. */
  row(symbol: string): number;
  symbol(row: number): string;
  venue(row: number): string;
  readonly pxExp: ArrayLike<number>;
  readonly szExp: ArrayLike<number>;
  /** Mantissas of the least steps; NaN where not stated. */
  readonly tickSize: ArrayLike<number>;
  readonly lotSize: ArrayLike<number>;
  /** `T` trading, `H` halted, `C` closed: what the definition says. */
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

/** Columns that every kind of value has, by row. */
export interface StampColumns {
  /** Per instrument and channel, from 1; 0 where no value has come. */
  readonly sequence: Float64Array;
  /** See {@link FLAGS}. */
  readonly flags: Uint8Array;
  /** Venue time: whole ms since the Unix epoch, 0 where none was given, and the nanoseconds beyond. */
  readonly eventMs: Float64Array;
  readonly eventNs: Uint32Array;
  /** When the server first saw it. */
  readonly recvMs: Float64Array;
  readonly recvNs: Uint32Array;
}

/** Best bids and offers by row, mantissas. */
export interface QuoteColumns extends StampColumns {
  readonly bidPx: Float64Array;
  readonly bidSz: Float64Array;
  readonly askPx: Float64Array;
  readonly askSz: Float64Array;
}

/** 24 h statistics by row, mantissas. `volume` is at the size exponent, `turnover` at the price exponent. */
export interface TickerColumns extends StampColumns {
  readonly lastPx: Float64Array;
  readonly openPx: Float64Array;
  readonly highPx: Float64Array;
  readonly lowPx: Float64Array;
  readonly volume: Float64Array;
  readonly turnover: Float64Array;
  readonly bidPx: Float64Array;
  readonly askPx: Float64Array;
}

/** Trades: by row where it is the newest of each instrument, and one after another in a frame. Mantissas. */
export interface TradeColumns extends StampColumns {
  readonly px: Float64Array;
  readonly sz: Float64Array;
  /** Infinity above 2^53, see {@link Client.exact}. */
  readonly tradeId: Float64Array;
  /** Of the aggressor, a character code: {@link SIDE}. */
  readonly side: Uint8Array;
}

/** The trades of a frame, the oldest first. Valid until the callback returns. */
export interface TradeList extends TradeColumns {
  readonly length: number;
  readonly row: Uint32Array;
  /** Trades that were let go since the last frame because more than the backlog waited. */
  readonly dropped: number;
}

/** One side of a book, best first, mantissas. */
export interface Side {
  readonly length: number;
  readonly px: Float64Array;
  readonly sz: Float64Array;
}

/** A book as it was at one frame: another object takes its place when it changes. */
export interface Book {
  readonly row: number;
  readonly bids: Side;
  readonly asks: Side;
  /** Levels there are beyond those handed over, see {@link ConnectOptions.bookDepth}. */
  readonly bidLevels: number;
  readonly askLevels: number;
  readonly sequence: number;
  readonly eventMs: number;
  readonly recvMs: number;
  /** The book may be wrong: it is being put together anew, by us, by the server or by its source. */
  readonly suspect: boolean;
}

/** A hole, announced. */
export interface Gap {
  readonly row: number;
  readonly symbol: string;
  readonly channel: Channel;
  /** First and last sequence that is missing; both 0 where the server started anew and numbers cannot say it. */
  readonly from: number;
  readonly to: number;
  /**
   * `slow`: we were too slow for the server's history. `overrun`: the server was. `feed`: so its source said. `resync`:
   * lost while the connection was, longer than history reaches. `order`: found by us, and announced by nobody.
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

/** What has changed since the last frame. Valid until the callback returns. */
export interface Frame {
  /** Of the animation frame, on the clock of `performance.now()`. */
  readonly now: number;
  /** Rows that have changed, each once. */
  readonly changed: Uint32Array;
  /** What has changed of each of them: bits of {@link CHANGED}. */
  readonly what: Uint8Array;
  readonly trades: TradeList;
  readonly gaps: readonly Gap[];
  readonly raw: readonly RawRecord[];
}

/** Bits of {@link Frame.what}. */
export const CHANGED = { quote: 1, trade: 2, ticker: 4, book: 8, state: 32, instrument: 64 } as const;

/** Bits of `flags` columns. */
export const FLAGS = { last: 0x80, snapshot: 0x20, conflated: 0x10, delayed: 0x08, maybeBadBook: 0x04 } as const;

/** Values of `side` columns. */
export const SIDE = { buy: 66, sell: 83, unknown: 78 } as const;

/** What every {@link Update} has. Updates are small objects of their own, and stay valid. */
export interface UpdateBase {
  readonly row: number;
  readonly symbol: string;
  readonly sequence: number;
  readonly flags: number;
  readonly eventMs: number;
  readonly eventNs: number;
  readonly recvMs: number;
  readonly recvNs: number;
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

/** A trade. `price` and `size` are decimal text. */
export interface TradeUpdate extends UpdateBase {
  readonly channel: "trade";
  readonly px: number;
  readonly sz: number;
  readonly tradeId: number;
  readonly side: "buy" | "sell" | "unknown";
  readonly price: string;
  readonly size: string;
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

/** What {@link Client.onUpdate} and {@link Client.updates} hand over, told apart by `channel`. */
export type Update = QuoteUpdate | TradeUpdate | TickerUpdate | BookUpdate | RawUpdate;

/** The updates of these channels. */
export type UpdateOf<C extends Channel> = Extract<Update, { channel: C }>;

/** {@link SubscribeOptions} whose channels decide the type of the updates. */
export interface UpdateOptions<C extends Channel = Channel> extends SubscribeOptions {
  channels?: C | readonly C[];
}

/**
 * Something went wrong that no promise or answer carries. `code` is one of:
 *
 * * `refused`: the server refused a request; `message` is its own. A mistake in the program.
 * * `unknown_symbol`, `denied`: `symbols` are not there, or not for this client.
 * * `protocol`: bytes that break the layout; the connection is made anew.
 * * `inexact`: a value beyond 2^53 stands as Infinity in its column, and a book with such a price is not kept. Told
 *   once for each symbol and channel.
 * * `closed`: the connection has ended for good.
 */
export interface ClientError {
  readonly code: "refused" | "unknown_symbol" | "denied" | "protocol" | "inexact" | "closed";
  readonly message: string;
  readonly symbols: readonly string[];
}

/** What a `lag` event tells. */
export interface Lag {
  /** Age of the oldest change that was not displayed. */
  readonly lagMs: number;
  /** Trades let go since the last event. */
  readonly dropped: number;
}

/** Events of {@link Client.on}. */
export interface ClientEvents {
  connection: Connection;
  state: { readonly row: number; readonly symbol: string; readonly state: InstrumentState };
  gap: Gap;
  error: ClientError;
  lag: Lag;
  /** An instrument is new, or its definition has changed. */
  instrument: Instrument;
}

/** Figures for a status bar. Those of time are in ms, NaN before the first measurement. */
export interface Stats {
  /** Least round trip of the last pings. */
  readonly rttMs: number;
  /** The server's clock minus ours, estimated by the quickest ping. */
  readonly clockOffsetMs: number;
  /** From the server's `ts_send` to the frame with the packet's values: of the last 10 s, at most the newest 4,096. */
  readonly latencyP50Ms: number;
  readonly latencyP99Ms: number;
  /** Age of the oldest change when the last frame handed it over, since the client received it. */
  readonly lagMs: number;
  /** Over the last second: messages, records of data, of these flagged CONFLATED, and bytes. */
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
  /** Animation frames that brought something. */
  readonly frames: number;
}

/** Options of everything that listens. */
export interface ListenOptions {
  /** Ends the listening when it aborts. */
  signal?: AbortSignal;
}

/** A connection to a tickcast server, kept up until it is closed. */
export interface Client {
  readonly connection: Connection;
  /** Where socket and decoder run: `module` or `blob` worker, a `custom` one, or `none`; `starting` at first. */
  readonly worker: "starting" | "module" | "blob" | "custom" | "none";
  /** The interval of all subscriptions that have none of their own; assign to change it live. */
  conflateMs: number;
  /** True while the slower profile of hidden pages is in effect. */
  readonly hidden: boolean;

  /** Subscribes; values arrive in the columns, in frames and in updates. */
  subscribe(options: SubscribeOptions): Subscription;
  /** Calls back with what has changed, at most once per animation frame. Returns how to end it. */
  onFrame(callback: (frame: Frame) => void, options?: ListenOptions): () => void;
  /**
   * Subscribes, and calls back with an object for each change of state and for each trade. For few symbols: it makes
   * objects, the columns do not. The returned subscription ends both.
   */
  onUpdate<C extends Channel = "quote">(
    options: UpdateOptions<C>,
    callback: (update: UpdateOf<C>) => void,
  ): Subscription;
  /** The same to loop over. A loop that is slow gets the newest of each state, and trades up to the backlog. */
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
  /** The book of an instrument; undefined where none has come. */
  book(instrument: number | string): Book | undefined;
  state(instrument: number | string): InstrumentState;

  /** `mantissa × 10^pxExp` of the row with all its decimals, by digits alone; `""` for NaN and null. */
  format(row: number, mantissa: number | bigint | null): string;
  /** The same at the size exponent. */
  formatSize(row: number, mantissa: number | bigint | null): string;
  /** The nearest number, for charts. */
  price(row: number, mantissa: number): number;
  size(row: number, mantissa: number): number;
  /** The exact mantissa of a column's value as a BigInt, also beyond 2^53; null where there is no value. */
  exact(channel: "quote", row: number, field: QuoteField): bigint | null;
  exact(channel: "ticker", row: number, field: TickerField): bigint | null;
  exact(channel: "trade", row: number, field: TradeField): bigint | null;

  readonly stats: Stats;
  /** Resolves when the client has ended, with the reason. */
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

/** Connects to a server, and keeps the connection up. */
export type Connect = (options?: ConnectOptions | string) => Client;
