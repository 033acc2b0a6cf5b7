import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { followSeries } from "tickcast/adapters/uplot";
import { start, view } from "./common";

const client = start();
const chart = new uPlot(
  {
    ...{ width: view.clientWidth, height: 400 },
    series: [{}, { label: "bid", stroke: "#0072b2" }, { label: "ask", stroke: "#d55e00" }],
    axes: [{}, { size: 80 }],
  },
  [[], [], []],
  view,
);
followSeries(client, chart, { symbol: "BTC-USD", fields: ["bid", "ask"] });
