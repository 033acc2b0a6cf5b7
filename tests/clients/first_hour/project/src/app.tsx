import {
  CandlestickSeries,
  createChart,
  createSeriesMarkers,
  HistogramSeries,
  type Time,
  type UTCTimestamp,
} from "lightweight-charts";
import { useEffect, useRef, useState } from "react";
import { connect, type ClientError } from "tickcast";
import { followBars } from "tickcast/adapters/lightweight-charts";
import { useConnection, useInstrumentState, useQuote } from "tickcast/adapters/react";

const server = new URLSearchParams(location.search).get("server") ?? "http://127.0.0.1:9001";
const client = connect({ url: server });
Object.assign(globalThis, { client });

const SYMBOLS = ["BTC-USD", "EURUSD", "SPY"];

function Row({ symbol }: { symbol: string }) {
  const quote = useQuote(client, symbol);
  const state = useInstrumentState(client, symbol);
  return (
    <tr data-symbol={symbol} data-state={state}>
      <td>{symbol}</td>
      <td data-field="bid">{quote?.bid ?? "–"}</td>
      <td data-field="ask">{quote?.ask ?? "–"}</td>
    </tr>
  );
}

function Status() {
  const { phase, reason } = useConnection(client);
  const [error, setError] = useState<ClientError>();
  useEffect(() => client.on("error", setError), []);
  return (
    <p data-phase={phase} data-error={error?.code ?? ""}>
      {phase} {reason} <button onClick={() => client.reconnect()}>Reconnect now</button>
    </p>
  );
}

function Chart({ symbol }: { symbol: string }) {
  const element = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const chart = createChart(element.current!, { width: 600, height: 300, timeScale: { timeVisible: true } });
    const series = chart.addSeries(CandlestickSeries);
    const volume = chart.addSeries(HistogramSeries, { priceFormat: { type: "volume" }, priceScaleId: "" });
    volume.priceScale().applyOptions({ scaleMargins: { top: 0.8, bottom: 0 } });
    const marks = createSeriesMarkers<Time>(series, []);
    const end = followBars<UTCTimestamp>(client, series, {
      ...{ symbol, intervalS: 1, history: server },
      ...{ chart, volume, marks, timeZone: "local" },
    });
    Object.assign(globalThis, { series, volume, marks });
    return () => {
      end();
      chart.remove();
    };
  }, [symbol]);
  return <div ref={element} />;
}

export function App() {
  return (
    <>
      <Status />
      <table>
        <tbody>
          {SYMBOLS.map((symbol) => (
            <Row key={symbol} symbol={symbol} />
          ))}
        </tbody>
      </table>
      <Chart symbol="EURUSD" />
    </>
  );
}
