import { StrictMode, useState, type ReactNode } from "react";
import { createRoot } from "react-dom/client";
import { useConnection, useInstrumentState, useQuote, useTrade } from "tickcast/adapters/react";
import { start, view } from "./common";

const client = start();
const SYMBOLS = ["BTC-USD", "ETH-USD", "EURUSD", "SPY"];

function Row({ symbol }: { symbol: string }): ReactNode {
  const quote = useQuote(client, symbol, 100);
  const trade = useTrade(client, symbol);
  const state = useInstrumentState(client, symbol);
  return (
    <tr className={state === "LIVE" ? "" : "stale"}>
      <td>{symbol}</td>
      <td>{quote?.bid ?? "–"}</td>
      <td>{quote?.ask ?? "–"}</td>
      <td>{trade?.price ?? "–"}</td>
      <td>{state}</td>
    </tr>
  );
}

function Reconnect(): ReactNode {
  const { phase, reason, retryAt } = useConnection(client);
  if (phase !== "waiting") return null;
  const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
  return (
    <p>
      {reason}; next attempt in {seconds} s <button onClick={() => client.reconnect()}>Reconnect now</button>
    </p>
  );
}

function Watchlist(): ReactNode {
  const [count, setCount] = useState(2);
  return (
    <>
      <Reconnect />
      <table>
        <tbody>
          {SYMBOLS.slice(0, count).map((symbol) => (
            <Row key={symbol} symbol={symbol} />
          ))}
        </tbody>
      </table>
      <button onClick={() => setCount(count === 2 ? SYMBOLS.length : 2)}>{count === 2 ? "more" : "fewer"}</button>
    </>
  );
}

createRoot(view).render(
  <StrictMode>
    <Watchlist />
  </StrictMode>,
);
