/**
 * The page at `/`: a client, the panels, and what goes between them. Once per animation frame the client says what has
 * changed, and each panel writes what it shows of it.
 */

import { CHANGED, type Frame, connect } from "tickcast";
import { Chart, DRAW_EVERY_MS, INTERVALS_S } from "./chart.ts";
import { field, part, write } from "./dom.ts";
import { noteFrame } from "./hooks.ts";
import { Ident } from "./ident.ts";
import { Ladder } from "./ladder.ts";
import { Market } from "./market.ts";
import { Navigation } from "./navigation.ts";
import { Operator } from "./operator.ts";
import { RecentTrades } from "./recent.ts";
import { Status, recallProfile } from "./status.ts";
import { Tape } from "./tape.ts";
import { keepTheme } from "./theme.ts";
import { SECOND_MS, Watchlist } from "./watchlist.ts";

const panel = (name: string): HTMLElement => part(document, `[data-panel="${name}"]`);

const client = connect({ url: location.origin, conflateMs: recallProfile() });
const all = client.subscribe({ symbols: "*", channels: ["quote", "trade", "ticker"] });
/** The server has told of all instruments that it has. */
let hasTold = false;
/** The book of the chosen instrument alone. */
const book = client.subscribe({ symbols: [], channels: ["book"] });

const market = new Market(client);
const recent = new RecentTrades();
const ident = new Ident(panel("ident"), market);
const chart = new Chart(panel("chart"), market);
const ladder = new Ladder(panel("ladder"), market);
const tape = new Tape(panel("tape"), market, recent);
const status = new Status(panel("status"), panel("banner"), client);
const operator = new Operator(panel("operator"));
const watchlist = new Watchlist(panel("watchlist"), market, (row) => navigation.open(market.symbol(row)));
const navigation = new Navigation({
  symbolChosen: (symbol) => choose(symbol),
  viewChosen: (view) => {
    operator.show(view === "operator");
    if (view === "markets") refresh();
  },
  mayHave: (symbol) => !hasTold || client.instruments.row(symbol) >= 0,
  // What is shown by now stays.
  fallback: () => (chosen >= 0 ? chosenSymbol : (firstPin() ?? firstSymbol())),
});

/** What went wrong without ending anything; until another instrument is chosen, or those come that it is about. */
const notice = field(document, "notice");
let noticed: readonly string[] = [];

/** The row that the panels at the right show; -1 while there is none. */
let chosen = -1;
let chosenSymbol = "";

/** Shows an instrument, or waits for it where the server does not know it yet. */
function choose(symbol: string): void {
  const row = symbol === "" ? -1 : client.instruments.row(symbol);
  if (symbol === chosenSymbol && row === chosen) return;
  if (symbol !== chosenSymbol) tell("");
  chosenSymbol = symbol;
  chosen = row;
  book.symbols = symbol === "" ? [] : [symbol];
  ident.choose(row);
  if (row < 0) ident.miss(symbol);
  for (const shown of [chart, ladder, tape]) shown.choose(row);
  watchlist.chosen = row;
  document.title = ident.title;
}

function tell(message: string, about: readonly string[] = []): void {
  noticed = about;
  write(notice, message === "" ? "" : message.charAt(0).toUpperCase() + message.slice(1));
}

function firstSymbol(): string {
  return watchlist.first < 0 ? "" : market.symbol(watchlist.first);
}

function firstPin(): string | undefined {
  return [...watchlist.pins].find((symbol) => client.instruments.row(symbol) >= 0);
}

function onFrame(frame: Frame): void {
  recent.take(frame.trades);
  tape.take(frame.trades);
  chart.take(frame);
  watchlist.take(frame);
  // What is not seen is not drawn, and all of it when it is seen again.
  if (!navigation.showsMarkets) return;
  watchlist.draw(frame.now);
  if (chosen < 0) navigation.settle();
  const at = frame.changed.indexOf(chosen);
  if (at < 0) return;
  const what = frame.what[at] ?? 0;
  if ((what & (CHANGED.book | CHANGED.trade)) !== 0) ladder.touch();
  ident.draw();
  ladder.draw();
  tape.draw();
}

/** Writes all that stands: no frame comes for what changed while the operator's view was shown. */
function refresh(): void {
  watchlist.draw(performance.now());
  if (chosen < 0) navigation.settle();
  ladder.touch();
  ident.draw();
  ladder.draw();
  tape.draw();
}

const told = (): void => {
  hasTold = true;
  if (navigation.showsMarkets) refresh();
};
// It rejects where the connection ends for good before: the banner says so.
all.ready.then(told, () => undefined);

client.onFrame((frame) => {
  const from = performance.now();
  onFrame(frame);
  noteFrame(performance.now() - from);
});
client.on("instrument", ({ row, symbol }) => {
  market.redefined(row);
  chart.defined(row);
  if (noticed.includes(symbol)) tell("");
  watchlist.renew();
  // What the address names may have come.
  if (chosen < 0) navigation.settle();
});
let wasLive = false;
client.on("connection", ({ phase, resumed }) => {
  status.showConnection();
  watchlist.renew();
  // Live events have a hole unless the stream went on from history.
  if (phase === "live" && wasLive && resumed !== "replay" && resumed !== "pending") chart.reload();
  wasLive ||= phase === "live";
  write(field(document, "version"), client.connection.version);
});
client.on("error", ({ code, message, symbols }) => tell(message, code === "unknown_symbol" ? symbols : []));

const search = field<HTMLInputElement>(document, "search");
search.addEventListener("input", () => {
  // What is found is in the watchlist, wherever one was.
  navigation.back();
  watchlist.search = search.value;
});
part(document, "form.search").addEventListener("submit", (event) => event.preventDefault());
search.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && watchlist.first >= 0) navigation.open(market.symbol(watchlist.first));
  else if (event.key === "ArrowDown") watchlist.focus();
  else return;
  event.preventDefault();
});
document.addEventListener("keydown", onKey);

/** Keys that hold everywhere but where something is typed. */
function onKey(event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey || part<HTMLDialogElement>(document, "dialog").open) return;
  if (event.key === "Escape") return escape();
  const target = event.target;
  if (target instanceof HTMLInputElement || target instanceof HTMLSelectElement) return;
  const interval = INTERVALS_S[Number(event.key) - 1];
  if (event.key === "/") search.focus();
  else if (event.key === "?") about.showModal();
  else if (interval !== undefined) chart.setInterval(interval);
  else return;
  event.preventDefault();
}

/** One step back: an empty search, then the watchlist. */
function escape(): void {
  if (search.value !== "") search.value = watchlist.search = "";
  else navigation.back();
  watchlist.focus();
}

const about = part<HTMLDialogElement>(document, "dialog");
part(document, "[data-action=about]").addEventListener("click", () => about.showModal());
part(document, "[data-action=back]").addEventListener("click", () => navigation.back());
part(document, "[data-action=reconnect]").addEventListener("click", () => location.reload());

const restyle = (): void => {
  for (const styled of [watchlist, chart, status, operator]) styled.restyle();
};
keepTheme(part(document, "[data-action=theme]"), restyle);
restyle();
// Rows are taller on a phone.
matchMedia("(max-width: 800px)").addEventListener("change", restyle);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) chart.reload();
});

setInterval(() => watchlist.tick(performance.now()), 100);
setInterval(() => chart.draw(), DRAW_EVERY_MS);
setInterval(() => status.showConnection(), 250);
setInterval(() => status.showFigures(), 500);
setInterval(() => {
  watchlist.everySecond(performance.now());
  document.title = ident.title;
}, SECOND_MS);
