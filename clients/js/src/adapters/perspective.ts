/**
 * Tables for Perspective: columns of the changed rows, upserted by symbol.
 *
 * What always holds: one update is under way at a time; rows that change meanwhile are pending once each, and are sent
 * with their newest values. A slow table thus gets fewer and larger updates. The row of an instrument that the server
 * releases is removed.
 */

import { ANY, CLIENT, FUNCTION, having, SIGNAL, verify, verifyAll } from "../check";
import { matcher } from "../match";
import type { Channel, Client } from "../types";

/** The schema of the columns that {@link feedTable} makes, and the table's options: `client.table(schema, options)`. */
export const schema = {
  symbol: "string",
  venue: "string",
  state: "string",
  bid: "float",
  bid_size: "float",
  ask: "float",
  ask_size: "float",
  last: "float",
  volume: "float",
  updated: "datetime",
} as const;
export const options = { index: "symbol" } as const;

type Column = keyof typeof schema;

/** Values by column; `null` where there is no value. */
export type TableColumns = Record<Column, (string | number | null)[]>;

/** The used part of a table. */
export interface Table {
  update(columns: any): Promise<unknown> | unknown;
  /** Removes rows by their index, the symbol. */
  remove(symbols: any): Promise<unknown> | unknown;
}

export interface TableOptions {
  symbols: string | readonly string[];
  /** Default quote, trade and ticker. */
  channels?: readonly Channel[];
  /** Called with an error of the table's update. Default: the feed ends, and the error is thrown. */
  onError?: (error: unknown) => void;
  signal?: AbortSignal;
}

/** The present values of these rows. */
export function tableColumns(client: Client, rows: Iterable<number>): TableColumns {
  const columns = Object.fromEntries(Object.keys(schema).map((name) => [name, []])) as unknown as TableColumns;
  const { quotes, tickers, lastTrades, instruments } = client;
  const value = (number: number): number | null => (Number.isFinite(number) ? number : null);
  for (const row of rows) {
    const lastPx = lastTrades.sequence[row] > 0 ? lastTrades.px[row] : tickers.lastPx[row];
    columns.symbol.push(instruments.symbol(row));
    columns.venue.push(instruments.venue(row));
    columns.state.push(client.state(row));
    columns.bid.push(value(client.price(row, quotes.bidPx[row])));
    columns.bid_size.push(value(client.size(row, quotes.bidSz[row])));
    columns.ask.push(value(client.price(row, quotes.askPx[row])));
    columns.ask_size.push(value(client.size(row, quotes.askSz[row])));
    columns.last.push(value(client.price(row, lastPx)));
    columns.volume.push(value(client.size(row, tickers.volume[row])));
    columns.updated.push(Math.max(quotes.recvMs[row], lastTrades.recvMs[row]) || null);
  }
  return columns;
}

/** Feeds a table until the returned function, or the signal, ends it. */
export function feedTable(client: Client, table: Table, given: TableOptions): () => void {
  verify("client", client, CLIENT);
  verify("table", table, having("update", "remove"));
  verifyAll("options", given, { symbols: ANY, channels: ANY, onError: FUNCTION, signal: SIGNAL });
  const { symbols, channels = ["quote", "trade", "ticker"], signal } = given;
  const own = new AbortController();
  const end = (): void => own.abort();
  signal?.addEventListener("abort", end, { signal: own.signal });
  if (signal?.aborted === true) end();
  const covers = matcher(client.subscribe({ symbols, channels, signal: own.signal }).symbols);
  const pending = new Set<number>();
  const released = new Set<string>();
  let isBusy = false;
  const flush = async (): Promise<void> => {
    if (isBusy) return;
    isBusy = true;
    try {
      while (pending.size + released.size > 0 && !own.signal.aborted) {
        const gone = [...released];
        released.clear();
        if (gone.length > 0) await table.remove(gone);
        const rows = [...pending];
        pending.clear();
        if (rows.length > 0) await table.update(tableColumns(client, rows));
      }
    } catch (error) {
      end();
      if (given.onError === undefined) throw error;
      given.onError(error);
    } finally {
      isBusy = false;
    }
  };
  const take = (rows: Iterable<number>): void => {
    for (const row of rows) if (covers(client.instruments.symbol(row))) pending.add(row);
    void flush();
  };
  // Instruments that another subscription covers already have values.
  if (!own.signal.aborted) take([...client.instruments].map(({ row }) => row));
  client.onFrame(({ changed }) => take(changed), { signal: own.signal });
  client.on(
    "released",
    ({ row, symbol }) => {
      pending.delete(row);
      if (!covers(symbol)) return;
      // If it was defined again already, the new values replace the old ones.
      const again = client.instruments.row(symbol);
      if (again < 0) released.add(symbol);
      else pending.add(again);
      void flush();
    },
    { signal: own.signal },
  );
  return end;
}
