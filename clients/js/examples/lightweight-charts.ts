import { CandlestickSeries, createChart, type UTCTimestamp } from "lightweight-charts";
import { followBars } from "tickcast/adapters/lightweight-charts";
import { server, start, view } from "./common";

const client = start();
const chart = createChart(view, { autoSize: true, timeScale: { timeVisible: true, secondsVisible: true } });
const series = chart.addSeries(CandlestickSeries);
followBars<UTCTimestamp>(client, series, { symbol: "BTC-USD", intervalS: 1, history: server });
