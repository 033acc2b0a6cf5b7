/**
 * Hooks for React: the newest update of an instrument, its state, and the connection.
 *
 * What always holds: a mounted component has one subscription, which ends with it, or with another symbol; components
 * that mount and unmount within one tick cost the server nothing. A hook renders its component at most once per
 * animation frame, or as often as `conflateMs` says. For hundreds of cells write `textContent` in `client.onFrame`.
 */

import { useCallback, useEffect, useState, useSyncExternalStore } from "react";
import type { Channel, Client, Connection, InstrumentState, UpdateOf } from "../types";

/** The newest update of a channel of one instrument; undefined before the first one. */
export function useUpdate<C extends Channel>(
  client: Client,
  symbol: string,
  channel: C,
  conflateMs?: number | null,
): UpdateOf<C> | undefined {
  const [update, setUpdate] = useState<UpdateOf<C>>();
  useEffect(() => {
    const subscription = client.onUpdate({ symbols: symbol, channels: channel, conflateMs }, setUpdate);
    return () => {
      subscription.close();
      setUpdate(undefined);
    };
  }, [client, symbol, channel, conflateMs]);
  return update;
}

/** The newest quote of an instrument, with `bid` and `ask` as exact text; undefined before the first one. */
export function useQuote(client: Client, symbol: string, conflateMs?: number | null): UpdateOf<"quote"> | undefined {
  return useUpdate(client, symbol, "quote", conflateMs);
}

/** The newest trade of an instrument, with `price` as exact text; undefined before the first one. */
export function useTrade(client: Client, symbol: string): UpdateOf<"trade"> | undefined {
  return useUpdate(client, symbol, "trade");
}

/** The 24 h statistics of an instrument; undefined before the first ones. */
export function useTicker(client: Client, symbol: string, conflateMs?: number | null): UpdateOf<"ticker"> | undefined {
  return useUpdate(client, symbol, "ticker", conflateMs);
}

/** Whether the values of an instrument are current. `STALE` before it is known. */
export function useInstrumentState(client: Client, symbol: string): InstrumentState {
  const subscribe = useCallback(
    (changed: () => void) => {
      const ends = [
        ...[client.on("state", (event) => event.symbol === symbol && changed()), client.on("connection", changed)],
        ...[client.on("instrument", (event) => event.symbol === symbol && changed()), client.on("released", changed)],
      ];
      return () => ends.forEach((end) => end());
    },
    [client, symbol],
  );
  const snapshot = (): InstrumentState => client.state(symbol);
  return useSyncExternalStore(subscribe, snapshot, snapshot);
}

/** The connection: its phase, why it was lost, and when the next attempt is. */
export function useConnection(client: Client): Connection {
  const subscribe = useCallback((changed: () => void) => client.on("connection", changed), [client]);
  const snapshot = (): Connection => client.connection;
  return useSyncExternalStore(subscribe, snapshot, snapshot);
}
