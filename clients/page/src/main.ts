/**
 * The page at `/`: creates the client and the panels, and connects them. Once per animation frame the client delivers
 * the changes, and each panel draws its part.
 */

import { CHANGED, type Frame, connect } from "tickcast";
import { addressText, parseAddress } from "./address.ts";
import { AlertPanel } from "./alert-panel.ts";
import { Chart, DRAW_EVERY_MS, INTERVALS_S } from "./chart.ts";
import { delayText, gridText } from "./delay.ts";
import { attribute, field, mark, part, write } from "./dom.ts";
import { noteFrame } from "./hooks.ts";
import { Ident } from "./ident.ts";
import { Ladder } from "./ladder.ts";
import { ListPanel } from "./list-panel.ts";
import { Login } from "./login.ts";
import { depthText, rightsText } from "./login-text.ts";
import { Market } from "./market.ts";
import { Navigation } from "./navigation.ts";
import { Operator } from "./operator.ts";
import { opening } from "./order.ts";
import { RecentTrades } from "./recent-trades.ts";
import { SecondChart } from "./second-chart.ts";
import { Status, recallConflation } from "./status.ts";
import { initTheme } from "./theme.ts";
import { titleText } from "./title.ts";
import { Trades } from "./trades.ts";
import { ZoneSelect } from "./zone-choice.ts";
import { SECOND_MS, Watchlist } from "./watchlist.ts";

const panel = (name: string): HTMLElement => part(document, `[data-panel="${name}"]`);

const login = new Login(panel("login") as HTMLDialogElement, part(document, "[data-action=login]"));
const client = connect({ url: location.origin, conflateMs: recallConflation(), token: login.provide });
/** Another page shows the chart alone in a frame: only its instrument is subscribed. */
const { isEmbedded, symbol: framed } = parseAddress(location.hash);
mark(document.body, "embedded", isEmbedded ? "yes" : "");
const symbols = isEmbedded && framed !== "" ? [framed] : "*";
const all = client.subscribe({ symbols, channels: ["quote", "trade", "ticker"] });
/** The server has sent all of its instruments. */
let isSynced = false;
/** The subscription to the book of the chosen instrument. */
const book = client.subscribe({ symbols: [], channels: ["book"] });

const market = new Market(client);
const recent = new RecentTrades();
const ident = new Ident(panel("ident"), market);
const second = new SecondChart(panel("chart"), market, (venue) => zones.zone(venue));
const chart = new Chart(panel("chart"), market);
const zones = new ZoneSelect(field<HTMLSelectElement>(panel("trades"), "zone"), () => showZone());
const ladder = new Ladder(panel("ladder"), market);
const trades = new Trades(panel("trades"), market, recent);
const status = new Status(panel("status"), panel("banner"), client, login);
const alerts = new AlertPanel(
  panel("alerts") as HTMLDialogElement,
  part(document, "[data-action=alerts]"),
  panel("notices"),
  market,
);
const operator = new Operator(panel("operator"));
const watchlist = new Watchlist(panel("watchlist"), market, (row) => navigation.open(market.symbol(row)));
const listButton = part(document, "[data-action=lists]");
const lists = new ListPanel(panel("lists") as HTMLDialogElement, panel("listbar"), listButton, {
  shown: (symbols) => (watchlist.list = symbols),
  linkTo: (list) => `${location.origin}${location.pathname}${addressText(chosenSymbol, false, list)}`,
  left: () => navigation.dropList(),
  problem: (text) => showNotice(text),
});
const navigation = new Navigation({
  symbolChosen: (symbol) => choose(symbol),
  viewChosen: (view) => {
    operator.show(view === "operator");
    if (view === "markets") refresh();
  },
  listNamed: (list) => (lists.address = list),
  mayShow: (symbol) => {
    const row = client.instruments.row(symbol);
    if (row < 0 || market.state(row) === "RESYNCING") return !isSynced;
    return opening([market.candidate(row)], true) !== "";
  },
  // The instrument that is shown already, else the first of the watchlist with prices; pinned ones are the first.
  fallback: () =>
    chosen >= 0 ? chosenSymbol : opening(watchlist.order.map((row) => market.candidate(row)), isSynced),
});

const SHOWN_ELSEWHERE: readonly string[] = ["inexact", "denied", "limited", "delayed", "token", "origin"];
/** The notice of an error after which the page continues. It is cleared when one of its symbols is defined. */
const notice = field(document, "notice");
let noticeSymbols: readonly string[] = [];

/** The stream was live before. */
let wasLive = false;
/** It was live, and has not all of what came since. */
let wasAway = false;

/** The row that the panels at the right show; -1 for none. */
let chosen = -1;
let chosenSymbol = "";

/** Shows an instrument; one that the server does not have yet is shown once it is defined. */
function choose(symbol: string): void {
  const row = symbol === "" ? -1 : client.instruments.row(symbol);
  if (symbol === chosenSymbol && row === chosen) return;
  if (symbol !== chosenSymbol) showNotice("");
  chosenSymbol = symbol;
  chosen = row;
  for (const dialog of [alerts, lists]) dialog.symbol = symbol;
  const only = symbol === "" ? [] : [symbol];
  if (!isEmbedded) book.symbols = only;
  else if (symbol !== "") all.symbols = only;
  ident.choose(row);
  if (row < 0) ident.showUnknown(symbol);
  showZone();
  for (const shown of isEmbedded ? [chart] : [chart, ladder, trades]) shown.choose(row);
  watchlist.chosen = row;
  showTitle();
}

/** The title of the page: a tab that is not shown says by it whether its price is current. */
function showTitle(): void {
  const { phase, delayS } = client.connection;
  const state = chosen < 0 ? "" : market.state(chosen);
  const title = titleText({ price: ident.priceText, state, phase, wasLive, delayS });
  if (document.title !== title) document.title = title;
}

/** Passes on the zone of the times: that of the venue may be another for each instrument. */
function showZone(): void {
  const venue = chosen < 0 ? "" : client.instruments.venue(chosen);
  zones.venue = venue;
  for (const timed of [chart, trades]) timed.zone = zones.zone(venue);
  second.renewZone();
}

function showNotice(message: string, symbols: readonly string[] = []): void {
  noticeSymbols = symbols;
  write(notice, message === "" ? "" : message.charAt(0).toUpperCase() + message.slice(1));
}

/** Shows who is logged in, and in words what is not shown to that user. */
function showLogin(): void {
  login.show();
  const text = rightsText(all);
  login.showRights(text);
  write(field(document, "rights"), text);
  watchlist.empty =
    login.isNeeded || login.hasEnded
      ? ["Log in", "This server needs a token or an API key."]
      : all.denied.length > 0
        ? ["Nothing to show", text]
        : null;
  ladder.note = depthText(book);
}

/** Says in words how old the prices are. What is shown while the connection is lost is of that age as well. */
function showDelay(): void {
  const { delayS } = client.connection;
  write(field(document, "delay"), delayText(delayS));
  attribute(part(document, "#watchlist-rows"), "aria-label", gridText(delayS));
}

function onFrame(frame: Frame): void {
  recent.take(frame.trades, client.instruments, client.connection.epoch);
  trades.take(frame.trades);
  if (frame.gaps.some(({ row, channel }) => row === chosen && channel === "trade")) trades.reload();
  chart.take(frame);
  second.take(frame);
  if (!isEmbedded) alerts.take(frame);
  watchlist.take(frame);
  // Hidden panels are not drawn; refresh() draws everything when they are shown again.
  if (!navigation.showsMarkets) return;
  watchlist.draw(frame.now);
  if (chosen < 0) navigation.settle();
  const at = frame.changed.indexOf(chosen);
  if (at < 0) return;
  const what = frame.what[at] ?? 0;
  if ((what & (CHANGED.book | CHANGED.trade)) !== 0) ladder.markChanged();
  ident.draw();
  ladder.draw();
  trades.draw();
}

/** Draws everything: panels are not drawn while the operator's view is shown. */
function refresh(): void {
  watchlist.draw(performance.now());
  if (chosen < 0) navigation.settle();
  ladder.markChanged();
  ident.draw();
  ladder.draw();
  trades.draw();
}

const synced = (): void => {
  isSynced = true;
  if (navigation.showsMarkets) refresh();
};
// Rejects if the client is closed before: the banner shows that.
all.ready.then(synced, () => undefined);

client.onFrame((frame) => {
  const from = performance.now();
  onFrame(frame);
  noteFrame(performance.now() - from);
});
client.on("instrument", ({ row, symbol }) => {
  // The other panels have mantissas of the former exponents.
  const isOther = market.redefined(row);
  if (isOther) second.rescaled(row);
  if (isOther && row === chosen) {
    for (const shown of [ident, ladder, trades]) shown.choose(row);
    chart.rescaled();
  }
  for (const drawn of [chart, second]) drawn.defined(row);
  alerts.renew();
  if (noticeSymbols.includes(symbol)) showNotice("");
  watchlist.renew();
  // It may be the instrument that the address names.
  if (chosen < 0) navigation.settle();
});
client.on("state", ({ row }) => {
  watchlist.stateChanged(row);
  if (row === chosen) showTitle();
});
client.on("released", ({ row }) => {
  watchlist.renew();
  alerts.renew();
  second.settle();
  // The same symbol may be defined already again.
  if (row === chosen) choose(chosenSymbol);
  if (navigation.showsMarkets) refresh();
});
client.on("connection", ({ phase, resumed }) => {
  showLogin();
  showDelay();
  showTitle();
  status.showConnection();
  watchlist.renew();
  // Without a replay the live events have a gap. A token that is renewed leaves none.
  if (phase === "live" && wasAway && resumed !== "replay" && resumed !== "pending") {
    for (const list of [chart, second, trades]) list.reload();
  }
  // Of a replay that was asked for, it is not known yet.
  wasAway = phase === "live" ? wasAway && resumed === "pending" : wasLive;
  wasLive ||= phase === "live";
  write(field(document, "version"), client.connection.version);
});
client.on("error", ({ code, message, symbols }) => {
  // The page shows every digit also of a value that no number has exactly, and says in other words what is not shown.
  if (!SHOWN_ELSEWHERE.includes(code)) showNotice(message, code === "unknown_symbol" ? symbols : []);
});

login.follow(client);
const search = field<HTMLInputElement>(document, "search");
search.addEventListener("input", () => {
  // The watchlist shows what is found.
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
// Another kind of page: it has other subscriptions.
addEventListener("hashchange", () => {
  if (parseAddress(location.hash).isEmbedded !== isEmbedded) location.reload();
});
if (!isEmbedded) second.start();

/** The keys of the page, except in input fields. */
function onKey(event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") !== null) return;
  if (event.key === "Escape") return escape();
  const target = event.target;
  if (target instanceof HTMLInputElement || target instanceof HTMLSelectElement) return;
  const key = event.key.toLowerCase();
  const interval = INTERVALS_S[Number(event.key) - 1];
  if (isEmbedded && !"?ez".includes(key) && interval === undefined) return;
  if (event.key === "/") search.focus();
  else if (event.key === "?") about.showModal();
  else if (interval !== undefined) chart.setInterval(interval);
  else if (key === "a") alerts.open();
  else if (key === "l") lists.open();
  else if (key === "c") second.toggle(chosenSymbol);
  else if (key === "e") chart.toggleAll();
  else if (key === "z") zones.next();
  else return;
  event.preventDefault();
}

/** Clears the search, else goes back to the watchlist. */
function escape(): void {
  if (search.value !== "") search.value = watchlist.search = "";
  else navigation.back();
  watchlist.focus();
}

const about = part<HTMLDialogElement>(document, "dialog[data-panel=about]");
part(document, "[data-action=about]").addEventListener("click", () => about.showModal());
part(document, "[data-action=second]").addEventListener("click", () => second.toggle(chosenSymbol));
part(document, "[data-action=back]").addEventListener("click", () => navigation.back());
part(document, "[data-action=reconnect]").addEventListener("click", () => {
  // A client that has ended does not connect again.
  if (client.connection.phase === "closed") location.reload();
  else client.reconnect();
});
part(document, "[data-action=login-banner]").addEventListener("click", () => login.open());

const restyle = (): void => {
  for (const styled of [watchlist, chart, second, status, operator]) styled.restyle();
};
initTheme(part(document, "[data-action=theme]"), restyle);
restyle();
// Rows are taller on a phone.
matchMedia("(max-width: 800px)").addEventListener("change", restyle);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  for (const list of [chart, second, trades]) list.reload();
});

setInterval(() => watchlist.tick(performance.now()), 100);
setInterval(() => {
  for (const drawn of [chart, second]) drawn.draw();
}, DRAW_EVERY_MS);
setInterval(() => {
  showLogin();
  status.showConnection();
}, 250);
setInterval(() => status.showFigures(), 500);
setInterval(() => {
  watchlist.everySecond(performance.now());
  showTitle();
}, SECOND_MS);
