/** The status bar, the banner above the panels, and the control of the conflation profile. */

import type { Client, Connection } from "tickcast";
import { colour, field, fitCanvas, mark, part, radioGroup, write } from "./dom.ts";
import { countText, millisText } from "./format.ts";
import { isNumber, recall, remember } from "./store.ts";

export const PROFILES_MS: readonly number[] = [0, 10, 50, 100, 250, 500, 1000];
const FLOW_WIDTH = 72;
const FLOW_HEIGHT = 18;
/** Samples of the small picture of updates a second, two a second, three pixels each. */
const FLOW_POINTS = 24;
const OLD_AFTER_MS = 600;

/** The profile of the last visit, else 100 ms. */
export function recallProfile(): number {
  return recall("profile", 100, isProfile);
}

function isProfile(value: unknown): value is number {
  return isNumber(value) && PROFILES_MS.includes(value);
}

export class Status {
  readonly #banner: HTMLElement;
  readonly #client: Client;
  readonly #fields: Record<string, HTMLElement> = {};
  readonly #canvas: HTMLCanvasElement;
  readonly #flow: number[] = [];
  #samplesLive = 0;
  #flowColours = { bar: "", now: "" };
  /** Whether the stream was live before: its first connection is no reconnection. */
  #wasLive = false;
  /** When it was lost; NaN while it is live, or never was. */
  #lostAt = NaN;

  constructor(root: HTMLElement, banner: HTMLElement, client: Client) {
    this.#banner = banner;
    this.#client = client;
    this.#canvas = field<HTMLCanvasElement>(root, "flow");
    for (const name of FIELDS) this.#fields[name] = field(root, name);
    const check = radioGroup(field(root, "profile"), "profile", (value) => {
      client.conflateMs = Number(value);
      remember("profile", Number(value));
    });
    check(String(client.conflateMs));
    this.restyle();
    this.showConnection();
  }

  /** The connection, with the seconds to the next try; called a few times a second and at each change. */
  showConnection(): void {
    const { connection } = this.#client;
    if (connection.phase === "live") this.#wasLive = true;
    const name = nameOf(connection);
    mark(document.body, "connection", name);
    this.#markOld(connection);
    this.#write("connection", name);
    const seconds = Math.max(0, Math.ceil((connection.retryAt - Date.now()) / 1000));
    this.#write("countdown", connection.phase === "waiting" ? `in ${seconds} s` : "");
    const [title, text] = bannerOf(connection, seconds, this.#wasLive);
    this.#banner.hidden = title === "";
    write(field(this.#banner, "banner-title"), title);
    write(field(this.#banner, "banner-text"), text);
    part(this.#banner, "button").hidden = connection.phase !== "waiting" && connection.phase !== "closed";
    this.#write("worker", { none: "no", starting: NOTHING }[this.#client.worker as string] ?? "yes");
  }

  /** Prices that came and come no more are old: not at once, for most connections are back within the second. */
  #markOld({ phase }: Connection): void {
    if (phase === "live" || !this.#wasLive) this.#lostAt = NaN;
    else if (Number.isNaN(this.#lostAt)) this.#lostAt = Date.now();
    mark(document.body, "old", Date.now() - this.#lostAt >= OLD_AFTER_MS || phase === "closed" ? "yes" : "");
  }

  /** The figures, twice a second. */
  showFigures(): void {
    const { stats } = this.#client;
    const live = this.#client.connection.phase === "live";
    this.#write("rtt", live ? millisText(stats.rttMs) : NOTHING);
    this.#write("latency-p50", live ? millisText(stats.latencyP50Ms) : NOTHING);
    this.#write("latency-p99", live ? millisText(stats.latencyP99Ms) : NOTHING);
    this.#write("messages", countText(stats.messagesPerSecond));
    this.#write("updates", countText(stats.updatesPerSecond));
    this.#write("conflated", countText(stats.conflatedPerSecond));
    this.#write("gaps", countText(stats.gaps));
    // The first second has the snapshot in it, beside which all else were flat.
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

const NOTHING = "–";
const FIELDS = [
  ...["connection", "countdown", "rtt", "latency-p50", "latency-p99"],
  ...["messages", "updates", "conflated", "gaps", "worker"],
];

/** The connection in a word, which is also `data-connection` of the body. */
function nameOf({ phase }: Connection): string {
  return phase === "waiting" ? "reconnecting" : phase;
}

/** Title and text of the banner; empty while nothing is wrong. */
function bannerOf(connection: Connection, seconds: number, wasLive: boolean): [string, string] {
  const why = connection.reason === "" ? "" : ` ${sentence(connection.reason)}`;
  const old = wasLive ? " Prices below are the last that came." : "";
  switch (connection.phase) {
    case "waiting":
      return [seconds > 0 ? `Reconnecting in ${seconds} s.` : "Reconnecting.", `${why}${old}`.trim()];
    case "connecting":
      return connection.attempt > 1 ? ["Reconnecting.", `${why}${old}`.trim()] : ["", ""];
    case "stale":
      return ["Nothing comes from the server.", `The connection is open, but silent.${old}`];
    case "closed":
      return ["Disconnected.", `${why} This page does not try again by itself.`.trim()];
    default:
      return ["", ""];
  }
}

function sentence(words: string): string {
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? "" : "."}`;
}
