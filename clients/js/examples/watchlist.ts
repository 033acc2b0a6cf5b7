import { start, view } from "./common";

const client = start();
client.subscribe({ symbols: "*", channels: ["quote", "trade"] });

const body = view.appendChild(document.createElement("table")).createTBody();
const cells: HTMLTableCellElement[][] = [];

client.onFrame(({ changed }) => {
  for (const row of changed) {
    if (cells[row] === undefined) {
      const line = body.insertRow();
      cells[row] = Array.from({ length: 5 }, () => line.insertCell());
      cells[row][0].textContent = client.instruments.symbol(row);
    }
    const [, bid, ask, last, state] = cells[row];
    bid.textContent = client.format(row, client.quotes.bidPx[row]);
    ask.textContent = client.format(row, client.quotes.askPx[row]);
    last.textContent = client.format(row, client.lastTrades.px[row]);
    state.textContent = client.state(row);
    state.parentElement!.classList.toggle("stale", client.state(row) !== "LIVE");
  }
});
