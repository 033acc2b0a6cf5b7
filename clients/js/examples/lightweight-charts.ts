import {
  CandlestickSeries,
  createChart,
  createSeriesMarkers,
  HistogramSeries,
  type Time,
  type UTCTimestamp,
} from "lightweight-charts";
import { followBars } from "tickcast/adapters/lightweight-charts";
import { server, start, view } from "./common";

const client = start();
const chart = createChart(view, { autoSize: true, timeScale: { timeVisible: true, secondsVisible: true } });
const series = chart.addSeries(CandlestickSeries);
const volume = chart.addSeries(HistogramSeries, { priceFormat: { type: "volume" }, priceScaleId: "" });
volume.priceScale().applyOptions({ scaleMargins: { top: 0.8, bottom: 0 } });
const marks = createSeriesMarkers<Time>(series, []);
followBars<UTCTimestamp>(client, series, {
  ...{ symbol: "BTC-USD", intervalS: 1, history: server },
  ...{ chart, volume, marks, timeZone: "local" },
});
