/** The status bar with the choice of the conflation interval, and the banner above the panels. */

import type { Client, Connection } from "tickcast";
import { liveText } from "./delay.ts";
import { colour, field, fitCanvas, mark, part, radioGroup, write } from "./dom.ts";
import { NONE, countText, millisText } from "./format.ts";
import type { Login } from "./login.ts";
import { isNumber, recall, remember } from "./store.ts";

export const CONFLATION_MS: readonly number[] = [0, 10, 50, 100, 250, 500, 1000];
const FLOW_WIDTH = 72;
const FLOW_HEIGHT = 18;
/** Points of the small chart of updates per second: two per second, three pixels each. */
const FLOW_POINTS = 24;
const OLD_AFTER_MS = 600;

/** The conflation interval of the last visit, else 100 ms. */
export function recallConflation(): number {
  return recall("conflation", 100, isConflation);
}

function isConflation(value: unknown): value is number {
  return isNumber(value) && CONFLATION_MS.includes(value);
}

export class Status {
  readonly #banner: HTMLElement;
  readonly #client: Client;
  readonly #login: Login;
  readonly #fields: Record<string, HTMLElement> = {};
  readonly #canvas: HTMLCanvasElement;
  readonly #flow: number[] = [];
  #samplesLive = 0;
  #flowColours = { bar: "", now: "" };
  /** Whether the stream was ever live: the first connection is not a reconnect. */
  #wasLive = false;
  /** When the connection was lost; NaN while it is live, or never was. */
  #lostAt = NaN;

  constructor(root: HTMLElement, banner: HTMLElement, client: Client, login: Login) {
    this.#banner = banner;
    this.#client = client;
    this.#login = login;
    this.#canvas = field<HTMLCanvasElement>(root, "flow");
    for (const name of FIELDS) this.#fields[name] = field(root, name);
    const check = radioGroup(field(root, "conflation"), "conflation", (value) => {
      client.conflateMs = Number(value);
      remember("conflation", Number(value));
    });
    check(String(client.conflateMs));
    this.restyle();
    this.showConnection();
  }

  /** Shows the connection, and the seconds to the next attempt; called several times a second and at each change. */
  showConnection(): void {
    const { connection } = this.#client;
    if (connection.phase === "live") this.#wasLive = true;
    const name = nameOf(connection);
    mark(document.body, "connection", name);
    this.#markOld(connection);
    this.#write("connection", liveText(name, connection.delayS));
    mark(document.body, "delayed", connection.delayS > 0 ? "yes" : "");
    const seconds = Math.max(0, Math.ceil((connection.retryAt - Date.now()) / 1000));
    this.#write("countdown", connection.phase === "waiting" ? `in ${seconds} s` : "");
    const isAsked = this.#login.isNeeded;
    const [title, text] = isAsked ? ["Log in to see prices.", ""] : bannerOf(connection, seconds, this.#wasLive);
    this.#banner.hidden = title === "";
    write(field(this.#banner, "banner-title"), title);
    write(field(this.#banner, "banner-text"), text);
    const canReconnect = connection.phase === "waiting" || connection.phase === "closed";
    part(this.#banner, "[data-action=reconnect]").hidden = isAsked || !canReconnect;
    part(this.#banner, "[data-action=login-banner]").hidden = !isAsked && !this.#login.hasEnded;
    this.#write("worker", { none: "no", starting: NONE }[this.#client.worker as string] ?? "yes");
  }

  /** Marks prices as old after a lost connection: with a delay, because most reconnects take less than a second. */
  #markOld({ phase }: Connection): void {
    if (phase === "live" || !this.#wasLive) this.#lostAt = NaN;
    else if (Number.isNaN(this.#lostAt)) this.#lostAt = Date.now();
    mark(document.body, "old", Date.now() - this.#lostAt >= OLD_AFTER_MS || phase === "closed" ? "yes" : "");
  }

  /** Shows the figures; called twice a second. */
  showFigures(): void {
    const { stats } = this.#client;
    const live = this.#client.connection.phase === "live";
    this.#write("rtt", live ? millisText(stats.rttMs) : NONE);
    this.#write("latency-p50", live ? millisText(stats.latencyP50Ms) : NONE);
    this.#write("latency-p99", live ? millisText(stats.latencyP99Ms) : NONE);
    this.#write("messages", countText(stats.messagesPerSecond));
    this.#write("updates", countText(stats.updatesPerSecond));
    this.#write("conflated", countText(stats.conflatedPerSecond));
    this.#write("gaps", countText(stats.gaps));
    // The first second has the snapshot, whose peak would flatten the rest.
    this.#samplesLive = live ? this.#samplesLive + 1 : 0;
    if (this.#samplesLive > 4 || this.#flow.length > 0) this.#flow.push(live ? stats.updatesPerSecond : 0);
    if (this.#flow.length > FLOW_POINTS) this.#flow.shift();
    this.#drawFlow();
  }

  restyle(): void {
    this.#flowColours = { bar: colour("edge"), now: colour("accent") };
    this.#drawFlow();
  }

  #drawFlow(): void {
    fitCanvas(this.#canvas, FLOW_WIDTH, FLOW_HEIGHT);
    const context = this.#canvas.getContext("2d");
    if (context === null) return;
    const { width, height } = this.#canvas;
    context.clearRect(0, 0, width, height);
    const most = Math.max(1, ...this.#flow);
    const step = width / FLOW_POINTS;
    this.#flow.forEach((value, at) => {
      const tall = Math.max(1, Math.round((value / most) * height));
      context.fillStyle = at === this.#flow.length - 1 ? this.#flowColours.now : this.#flowColours.bar;
      context.fillRect(Math.round(at * step), height - tall, Math.max(1, Math.round(step) - 1), tall);
    });
  }

  #write(name: string, text: string): void {
    const target = this.#fields[name];
    if (target !== undefined) write(target, text);
  }
}

const FIELDS = [
  ...["connection", "countdown", "rtt", "latency-p50", "latency-p99"],
  ...["messages", "updates", "conflated", "gaps", "worker"],
];

/** The connection in a word: also the body's `data-connection`. */
function nameOf({ phase }: Connection): string {
  return phase === "waiting" ? "reconnecting" : phase;
}

/** Title and text of the banner; empty while the connection is good. */
function bannerOf(connection: Connection, seconds: number, wasLive: boolean): [string, string] {
  const why = connection.reason === "" ? "" : ` ${sentence(connection.reason)}`;
  const old = wasLive ? " The prices below are the last ones received." : "";
  switch (connection.phase) {
    case "waiting":
      return [seconds > 0 ? `Reconnecting in ${seconds} s.` : "Reconnecting.", `${why}${old}`.trim()];
    case "connecting":
      return connection.attempt > 1 ? ["Reconnecting.", `${why}${old}`.trim()] : ["", ""];
    case "stale":
      return ["The server is silent.", `The connection is open, but nothing is received.${old}`];
    case "closed":
      return ["Disconnected.", `${why} This page does not reconnect by itself.`.trim()];
    default:
      return ["", ""];
  }
}

function sentence(words: string): string {
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? "" : "."}`;
}
