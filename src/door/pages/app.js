// @ts-check
/**
 * The page at `/`: a live table of every instrument that this server sends.
 *
 * What always holds: values go into the state as they come, and the document is written at most once per animation
 * frame, only in rows that are in view and changed, and there only where the text differs. Each instrument has one row,
 * made once; only rows in view, and a few around them, are in the document.
 *
 * Cost: an update is a map look-up and some stores; a frame is O(rows in view), whatever the number of instruments.
 * Putting thousands of them in order by a value that moves is done once a second.
 */

import { DELAYED, NONE, Stream, Type, decimalText, readPacketHeader, readRecords } from "./wire.js";

/**
 * @typedef {import("./wire.js").Mantissa} Mantissa
 * @typedef {"bid" | "ask" | "last"} PriceName
 *
 * @typedef {object} Instrument
 * @property {string} symbol
 * @property {string} key the symbol as the search compares it
 * @property {string} venue
 * @property {number} pxExp
 * @property {number} szExp
 * @property {number} spareZeros decimals at the end that no price of this instrument has used so far; not shown
 * @property {Mantissa} bid
 * @property {Mantissa} ask
 * @property {Mantissa} last
 * @property {bigint} lastAt ts_recv of `last`
 * @property {Mantissa} open
 * @property {Mantissa} volume
 * @property {string} status the newest of Definition and Status
 * @property {boolean} delayed
 * @property {boolean} dirty something changed since the row was written
 * @property {number} frame the last frame in which the row was in the document
 * @property {Row | null} row made when it first comes into view
 *
 * @typedef {object} PriceCell
 * @property {HTMLElement} cell
 * @property {HTMLElement} value
 * @property {HTMLElement} arrow
 * @property {Mantissa} shown
 * @property {number} litUntil 0 when it is not lit
 *
 * @typedef {Record<PriceName, PriceCell>} PriceCells
 * @typedef {Record<"element" | "name" | "venue" | "tag" | "change" | "percent" | "amount" | "unit", HTMLElement>} Parts
 * @typedef {PriceCells & Parts} Row
 */

const SUBSCRIPTION = { op: "subscribe", channels: ["quote", "trade", "ticker"], symbols: ["*"], snapshot: true };
/** @type {PriceName[]} */
const PRICES = ["bid", "ask", "last"];
/** A price that moved is lit so long. It is lit and put out, not faded: a fade would paint every frame. */
const LIT_MS = 300;
/** Rows kept ready above and below the view, so that scrolling does not outrun the frame. */
const SPARE_ROWS = 12;
/** @type {Record<string, string>} */
const STATUS_WORDS = { H: "halted", C: "closed", S: "stale", E: "ended" };
const VOLUME_UNITS = ["", "K", "M", "B", "T"];

/** @param {string} id @returns {any} */
const element = (id) => document.getElementById(id);
const scroller = /** @type {HTMLElement} */ (element("scroller"));
const rows = /** @type {HTMLElement} */ (element("rows"));
const head = /** @type {HTMLElement} */ (document.querySelector("thead"));
const rowTemplate = /** @type {HTMLElement} */ (element("row").content.firstElementChild);
const calm = matchMedia("(prefers-reduced-motion: reduce)");

// What is known.

/** @type {Map<number, Instrument>} by the id of this epoch */
const instruments = new Map();
/** @type {Instrument[]} those that the search lets through, as the table shows them */
let shown = [];
/** @type {number | null} */
let epoch = null;
let gaps = 0;
const counted = { messages: 0, records: 0, bytes: 0 };

/** @param {DataView} packet */
function onPacket(packet) {
  const header = readPacketHeader(packet);
  if (header.epoch !== epoch) startEpoch(header.epoch);
  readRecords(packet, header.count, onRecord);
  counted.messages += 1;
  counted.records += header.count;
  counted.bytes += packet.byteLength;
  requestFrame();
}

/** Ids mean nothing across epochs, so everything starts anew. @param {number} next */
function startEpoch(next) {
  epoch = next;
  gaps = 0;
  instruments.clear();
  orderIsOld = true;
}

/** @param {import("./wire.js").WireRecord} record */
function onRecord(record) {
  if (record.type === Type.DEFINITION) return define(record.instrument, record.body);
  if (record.type === Type.GAP) gaps += 1;
  if (record.type === Type.STATUS && record.instrument === 0) return showFeedStatus(record.body.status);
  const instrument = instruments.get(record.instrument);
  if (instrument === undefined) return;
  if (record.type === Type.QUOTE) {
    instrument.bid = record.body.bid_px;
    instrument.ask = record.body.ask_px;
    instrument.delayed = (record.flags & DELAYED) !== 0;
  } else if (record.type === Type.TRADE) {
    traded(instrument, record.body.px, record.ts_recv);
  } else if (record.type === Type.TICKER) {
    traded(instrument, record.body.last_px, record.ts_recv);
    instrument.open = record.body.open_px;
    instrument.volume = record.body.volume;
  } else if (record.type === Type.STATUS) {
    instrument.status = record.body.status;
  }
  instrument.dirty = true;
}

/**
 * The last price is the newest of trades and tickers.
 * @type {(instrument: Instrument, px: Mantissa, at: bigint) => void}
 */
function traded(instrument, px, at) {
  if (px === null || at < instrument.lastAt) return;
  instrument.last = px;
  instrument.lastAt = at;
}

/** @param {number} id @param {import("./wire.js").Definition} definition */
function define(id, definition) {
  let instrument = instruments.get(id);
  if (instrument === undefined) {
    instrument = {
      ...{ symbol: "", key: "", venue: "", pxExp: 0, szExp: 0, spareZeros: 0, status: "T", delayed: false },
      ...{ bid: null, ask: null, last: null, lastAt: 0n, open: null, volume: null },
      ...{ dirty: true, frame: 0, row: null },
    };
    instruments.set(id, instrument);
  }
  const { symbol, venue, px_exp: pxExp, sz_exp: szExp, status, tick_size: tick } = definition;
  if (symbol !== instrument.symbol) orderIsOld = true;
  const tickZeros = tick === null ? -pxExp - 2 : Number(/0*$/.exec(String(tick))?.[0].length);
  const spareZeros = Math.max(0, Math.min(tickZeros, -pxExp));
  const key = symbol.toLowerCase();
  Object.assign(instrument, { symbol, key, venue, pxExp, szExp, status, spareZeros, dirty: true });
}

// The order of rows.

const sort = { by: "symbol", descending: false };
let search = "";
/** True when instruments came, or sort or search changed: the next frame puts the rows in order. */
let orderIsOld = true;
const bySymbol = new Intl.Collator("en", { numeric: true });

/**
 * Percent since the open, or null. A ratio is for the eye: only here a price becomes a float.
 * @param {Instrument} instrument
 */
function changeOf({ last, open }) {
  if (last === null || open === null || Number(open) === 0) return null;
  return ((Number(last) - Number(open)) / Math.abs(Number(open))) * 100;
}

/** @param {Instrument} instrument */
function volumeOf({ volume, szExp }) {
  return volume === null ? null : Number(volume) * 10 ** szExp;
}

function putInOrder() {
  orderIsOld = false;
  shown = [...instruments.values()].filter((instrument) => instrument.key.includes(search));
  if (sort.by === "symbol") {
    const turn = sort.descending ? -1 : 1;
    shown.sort((a, b) => turn * bySymbol.compare(a.symbol, b.symbol));
  } else {
    sortByNumber(sort.by === "change" ? changeOf : volumeOf);
  }
  rows.style.height = `${shown.length * measured.row}px`;
  rows.parentElement?.setAttribute("aria-rowcount", String(shown.length + 1));
  showEmpty();
}

/** Those without a value come last, either way. @param {(instrument: Instrument) => number | null} valueOf */
function sortByNumber(valueOf) {
  const turn = sort.descending ? -1 : 1;
  const values = new Map(shown.map((instrument) => [instrument, valueOf(instrument)]));
  shown.sort((a, b) => {
    const [left, right] = [values.get(a) ?? null, values.get(b) ?? null];
    if (left === null || right === null) return Number(left === null) - Number(right === null);
    return turn * (left - right) || (a.symbol < b.symbol ? -1 : 1);
  });
}

// The frame.

let frame = 0;
let frameIsDue = false;

function requestFrame() {
  if (frameIsDue) return;
  frameIsDue = true;
  requestAnimationFrame(writeFrame);
}

/** @param {number} now */
function writeFrame(now) {
  frameIsDue = false;
  frame += 1;
  if (orderIsOld) putInOrder();
  const first = firstRow();
  const inView = shown.slice(first, first + Math.ceil(measured.view / measured.row) + 2 * SPARE_ROWS);
  for (const instrument of inView) {
    instrument.row ??= makeRow();
    for (const price of PRICES) putOut(instrument.row[price], now);
    // A row that just came into view is brought up to date without a light: its change is not of this moment.
    const litUntil = instrument.frame === frame - 1 && !calm.matches ? now + LIT_MS : 0;
    instrument.frame = frame;
    if (instrument.dirty) writeRow(instrument, instrument.row, litUntil);
  }
  placeRows(inView, first);
}

/** Height of a row and of the window on them; measured when one of them changes. */
const measured = { row: 28, view: 0 };

function measure() {
  measured.row = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));
  measured.view = scroller.clientHeight;
  orderIsOld = true;
  requestFrame();
}

/** Index of the first row that has to be in the document. */
function firstRow() {
  return Math.max(0, Math.min(shown.length, Math.floor(scroller.scrollTop / measured.row)) - SPARE_ROWS);
}

/** @type {Instrument[]} those whose rows are in the document, in its order */
let placed = [];
let placedFirst = -1;

/**
 * Brings the rows into the document, in order, and moves only those that stand elsewhere.
 * @param {Instrument[]} inView
 * @param {number} first index of the first of them
 */
function placeRows(inView, first) {
  if (first === placedFirst && inView.length === placed.length && inView.every((one, at) => one === placed[at])) return;
  for (const instrument of placed) {
    if (instrument.frame !== frame) instrument.row?.element.remove();
  }
  let next = rows.firstElementChild;
  for (const [at, { row }] of inView.entries()) {
    if (row === null) continue;
    row.element.setAttribute("aria-rowindex", String(first + at + 2));
    if (row.element === next) next = next.nextElementSibling;
    else rows.insertBefore(row.element, next);
  }
  rows.style.paddingTop = `${first * measured.row}px`;
  placed = inView;
  placedFirst = first;
}

/** @returns {Row} */
function makeRow() {
  const row = /** @type {HTMLElement} */ (rowTemplate.cloneNode(true));
  const of = /** @param {string} selector */ (selector) => part(row, selector);
  /** @param {PriceName} name @returns {PriceCell} */
  const price = (name) => {
    const cell = of(`.${name}`);
    return { cell, value: part(cell, ".value"), arrow: part(cell, ".arrow"), shown: null, litUntil: 0 };
  };
  return {
    ...{ element: row, name: of(".name"), venue: of(".venue"), tag: of(".tag") },
    ...{ bid: price("bid"), ask: price("ask"), last: price("last") },
    ...{ change: of(".change"), percent: of(".change .value"), amount: of(".volume .value"), unit: of(".unit") },
  };
}

/** @type {(instrument: Instrument, row: Row, litUntil: number) => void} */
function writeRow(instrument, row, litUntil) {
  instrument.dirty = false;
  write(row.name, instrument.symbol);
  write(row.venue, instrument.venue);
  write(row.tag, STATUS_WORDS[instrument.status] ?? (instrument.delayed ? "delayed" : ""));
  for (const price of PRICES) {
    write(row[price].value, priceText(instrument, instrument[price]));
    showMove(row[price], instrument[price], litUntil);
  }
  const percent = changeText(changeOf(instrument));
  write(row.percent, percent);
  mark(row.change, "move", percent[0] === "+" ? "up" : percent[0] === "−" ? "down" : "");
  const [amount, unit] = volumeText(volumeOf(instrument));
  write(row.amount, amount);
  write(row.unit, unit);
}

/** @type {(price: PriceCell, now: Mantissa, litUntil: number) => void} */
function showMove(price, now, litUntil) {
  const before = price.shown;
  price.shown = now;
  if (before === null || now === null || now === before) return;
  mark(price.cell, "move", now > before ? "up" : "down");
  write(price.arrow, now > before ? "▲" : "▼");
  price.litUntil = litUntil;
  mark(price.cell, "lit", litUntil > 0 ? "yes" : "");
}

/** @type {(price: PriceCell, now: number) => void} */
function putOut(price, now) {
  if (price.litUntil === 0 || now < price.litUntil) return;
  price.litUntil = 0;
  mark(price.cell, "lit", "");
}

/** @param {HTMLElement} target @param {string} text */
function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** @type {(target: HTMLElement, name: "move" | "lit", value: string) => void} */
function mark(target, name, value) {
  if (target.dataset[name] !== value) target.dataset[name] = value;
}

/** @param {HTMLElement} root @param {string} selector */
function part(root, selector) {
  return /** @type {HTMLElement} */ (root.querySelector(selector));
}

// Texts.

/** @param {Instrument} instrument @param {Mantissa} mantissa */
function priceText(instrument, mantissa) {
  if (mantissa === null) return NONE;
  const text = decimalText(mantissa, instrument.pxExp).replace("-", "−");
  let spare = 0;
  while (spare < instrument.spareZeros && text.at(-1 - spare) === "0") spare += 1;
  instrument.spareZeros = spare;
  const [whole, decimals] = text.slice(0, text.length - spare).split(".");
  const grouped = whole.length > 3 ? whole.replace(/\B(?=(\d{3})+$)/g, ",") : whole;
  return decimals ? `${grouped}.${decimals}` : grouped;
}

/** @param {number | null} percent */
function changeText(percent) {
  if (percent === null) return NONE;
  const digits = Math.abs(percent).toFixed(2);
  return (digits === "0.00" ? "" : percent > 0 ? "+" : "−") + digits + "%";
}

/** @param {number | null} volume @returns {[string, string]} amount and unit */
function volumeText(volume) {
  if (volume === null) return [NONE, ""];
  let unit = 0;
  // Below a thousand also after rounding to two decimals.
  for (; volume >= 999.995 && unit < VOLUME_UNITS.length - 1; unit++) volume /= 1000;
  return [volume.toFixed(2), VOLUME_UNITS[unit]];
}

const grouping = new Intl.NumberFormat("en");

function showCount() {
  const all = instruments.size;
  const among = shown.length < all ? `${grouping.format(shown.length)} of ` : "";
  const missing = gaps > 0 ? `, ${grouping.format(gaps)} ${gaps === 1 ? "gap" : "gaps"} announced` : "";
  write(element("count"), `${among}${grouping.format(all)} ${all === 1 ? "instrument" : "instruments"}${missing}`);
}

/** Says why the table is empty, where it is. */
function showEmpty() {
  const none = instruments.size === 0;
  const hint = "They appear here as soon as a feed or a publisher announces one.";
  element("empty").hidden = shown.length > 0;
  head.hidden = none;
  write(element("empty-title"), none ? "No instruments yet" : "No symbol matches");
  write(element("empty-hint"), none ? hint : `None of the symbols contains “${search}”.`);
  showCount();
}

// The header.

let requests = 0;

function subscribe() {
  requests += 1;
  stream.send({ ...SUBSCRIPTION, id: requests, conflate_ms: Number(element("conflate").value) });
}

/** @param {any} message */
function onControl(message) {
  if (message.type === "welcome") {
    write(element("version"), `tickcast ${message.version}`);
    write(element("notice"), "");
    subscribe();
  } else if (message.type === "subscribed" && message.id === requests) {
    element("conflate").value = String(message.conflate_ms);
  } else if (message.type === "error") {
    write(element("notice"), `${message.code}: ${message.message}`);
  }
}

/** @param {string} status of the feed */
function showFeedStatus(status) {
  const word = STATUS_WORDS[status];
  write(element("notice"), word === undefined ? "" : `feed ${word}`);
}

/** @type {import("./wire.js").State} */
let state = { name: "connecting", reason: "", retryAt: 0 };

/** @param {import("./wire.js").State} next */
function onState(next) {
  state = next;
  document.body.dataset.state = state.name;
  write(element("state"), state.name);
  write(element("reason"), state.reason);
  showCountdown();
}

function showCountdown() {
  const seconds = Math.ceil((state.retryAt - performance.now()) / 1000);
  write(element("countdown"), state.name === "reconnecting" && seconds > 0 ? `in ${seconds} s` : "");
}

let ratedAt = performance.now();

function showRates() {
  const seconds = (performance.now() - ratedAt) / 1000;
  ratedAt = performance.now();
  write(element("messages"), grouping.format(Math.round(counted.messages / seconds)));
  write(element("records"), grouping.format(Math.round(counted.records / seconds)));
  write(element("kilobytes"), grouping.format(Math.round(counted.bytes / 1000 / seconds)));
  Object.assign(counted, { messages: 0, records: 0, bytes: 0 });
}

function everySecond() {
  showRates();
  showCount();
  if (sort.by !== "symbol") orderIsOld = true;
}

/** @param {HTMLButtonElement} button */
function sortBy(button) {
  const by = button.dataset.sort ?? "symbol";
  sort.descending = by === sort.by ? !sort.descending : by !== "symbol";
  sort.by = by;
  for (const column of head.querySelectorAll("[aria-sort]")) column.removeAttribute("aria-sort");
  button.closest("th")?.setAttribute("aria-sort", sort.descending ? "descending" : "ascending");
  scroller.scrollTop = 0;
  orderIsOld = true;
  requestFrame();
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  element("search").focus();
}

for (const button of head.querySelectorAll("button")) button.addEventListener("click", () => sortBy(button));
part(document.body, "form").addEventListener("submit", (event) => event.preventDefault());
element("conflate").addEventListener("change", subscribe);
element("search").addEventListener("input", () => {
  search = element("search").value.trim().toLowerCase();
  scroller.scrollTop = 0;
  orderIsOld = true;
  requestFrame();
});
document.addEventListener("keydown", onKey);
scroller.addEventListener("scroll", requestFrame, { passive: true });
new ResizeObserver(measure).observe(scroller);

const scheme = location.protocol === "https:" ? "wss:" : "ws:";
const stream = new Stream(`${scheme}//${location.host}/v1/stream`, { onState, onControl, onPacket });
addEventListener("online", () => stream.connect());
setInterval(() => stream.watch(), 250);
setInterval(showCountdown, 250);
setInterval(requestFrame, LIT_MS / 3);
setInterval(everySecond, 1000);
stream.connect();
