/**
 * Rows for AG Grid: one transaction of changes per animation frame; the grid applies them in batches of its own
 * (`asyncTransactionWaitMillis`).
 *
 * What always holds: a row is added once, then updated, and removed when the server releases the instrument; its id is
 * its symbol, so pass `getRowId` to the grid.
 */

import { ANY, CLIENT, FUNCTION, having, SIGNAL, verify, verifyAll } from "../check";
import { matcher } from "../match";
import { CHANGED, type Channel, type Client, type InstrumentState } from "../types";

/** A row of the grid. Prices and sizes are numbers for sorting; `text` has the digits of the instrument's precision. */
export interface GridRow {
  symbol: string;
  venue: string;
  state: InstrumentState;
  bid: number;
  bidSize: number;
  ask: number;
  askSize: number;
  last: number;
  volume: number;
  text: { bid: string; ask: string; last: string };
}

/** The used part of the grid's API. */
export interface Grid<Row> {
  applyTransactionAsync(transaction: { add?: Row[]; update?: Row[]; remove?: Row[] }): void;
}

/** The grid's option of the same name. */
export const getRowId = ({ data }: { data: { symbol: string } }): string => data.symbol;

export interface GridOptions<Row> {
  symbols: string | readonly string[];
  /** Default quote and ticker. */
  channels?: readonly Channel[];
  /** Makes a row, which must have `symbol`. Default {@link gridRow}. */
  row?: (client: Client, row: number) => Row;
  signal?: AbortSignal;
}

/** A row of the present values. */
export function gridRow(client: Client, row: number): GridRow {
  const { quotes, tickers, lastTrades, instruments } = client;
  const lastPx = lastTrades.sequence[row] > 0 ? lastTrades.px[row] : tickers.lastPx[row];
  const lastRest = lastTrades.sequence[row] > 0 ? lastTrades.pxRest[row] : tickers.lastPxRest[row];
  return {
    symbol: instruments.symbol(row),
    venue: instruments.venue(row),
    state: client.state(row),
    bid: client.price(row, quotes.bidPx[row]),
    bidSize: client.size(row, quotes.bidSz[row]),
    ask: client.price(row, quotes.askPx[row]),
    askSize: client.size(row, quotes.askSz[row]),
    last: client.price(row, lastPx),
    volume: client.size(row, tickers.volume[row]),
    text: {
      bid: client.format(row, quotes.bidPx[row], quotes.bidPxRest[row]),
      ask: client.format(row, quotes.askPx[row], quotes.askPxRest[row]),
      last: client.format(row, lastPx, lastRest),
    },
  };
}

/** Feeds a grid until the returned function, or the signal, ends it. */
export function feedGrid<Row extends { symbol: string } = GridRow>(
  client: Client,
  grid: Grid<Row>,
  options: GridOptions<Row>,
): () => void {
  verify("client", client, CLIENT);
  verify("grid", grid, having("applyTransactionAsync"));
  verifyAll("options", options, { symbols: ANY, channels: ANY, row: FUNCTION, signal: SIGNAL });
  const { symbols, channels = ["quote", "ticker"], signal } = options;
  const rowOf = options.row ?? (gridRow as unknown as (client: Client, row: number) => Row);
  const own = new AbortController();
  const end = (): void => own.abort();
  signal?.addEventListener("abort", end, { signal: own.signal });
  if (signal?.aborted === true) end();
  const subscription = client.subscribe({ symbols, channels, signal: own.signal });
  const covers = matcher(subscription.symbols);
  /** By symbol: the row that the grid has. */
  const added = new Map<string, Row>();
  const values = subscription.channels.reduce((bits, name) => bits | bitOf(name), 0);
  const relevant = CHANGED.state | CHANGED.instrument | values;
  const take = (rows: Iterable<number>): void => {
    const [add, update]: [Row[], Row[]] = [[], []];
    for (const row of rows) {
      const made = rowOf(client, row);
      (added.has(made.symbol) ? update : add).push(made);
      added.set(made.symbol, made);
    }
    if (add.length + update.length > 0) grid.applyTransactionAsync({ add, update });
  };
  // Instruments that another subscription covers already have values.
  take([...client.instruments].filter(({ symbol }) => covers(symbol)).map(({ row }) => row));
  client.onFrame(
    ({ changed, what }) => {
      const isRelevant = (row: number, index: number): boolean =>
        (what[index] & relevant) !== 0 && covers(client.instruments.symbol(row));
      take(changed.filter(isRelevant));
    },
    { signal: own.signal },
  );
  client.on(
    "released",
    ({ symbol }) => {
      const [again, made] = [client.instruments.row(symbol), added.get(symbol)];
      if (made === undefined) return;
      // It was defined again already.
      if (again >= 0) return take([again]);
      added.delete(symbol);
      grid.applyTransactionAsync({ remove: [made] });
    },
    { signal: own.signal },
  );
  return end;
}

function bitOf(channel: Channel): number {
  return channel === "raw" ? 0 : CHANGED[channel];
}
