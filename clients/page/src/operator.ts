/**
 * The operator's view: requests `/v1/operator` once a second while it is shown, and shows the reason of a refusal.
 *
 * A token is kept for this tab only (sessionStorage), and sent as `Authorization: Bearer`.
 */

import { attribute, field, make, mark, part, write } from "./dom.ts";
import { NONE, bytesText, compactText, countText, localZoneText, millisText, spanText } from "./format.ts";
import {
  type OperatorAnswer,
  Rates,
  type ShardRates,
  type SlowClient,
  type Source,
  ringText,
  wordsOf,
} from "./operator-data.ts";
import { RateChart } from "./rate-chart.ts";

const INTERVAL_MS = 1000;
/** After this time the server counts as not answering. */
const TIMEOUT_MS = 5000;
const TOKEN = "tickcast.operator-token";

export class Operator {
  readonly #root: HTMLElement;
  #chart: RateChart | null = null;
  #before: OperatorAnswer | null = null;
  #timer = 0;
  #token = recallToken();

  constructor(root: HTMLElement) {
    this.#root = root;
    field(root, "gate").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#token = field<HTMLInputElement>(root, "token").value.trim();
      rememberToken(this.#token);
      this.#restart();
    });
  }

  /** Shows or hides the view; requests are sent only while it is shown. */
  show(visible: boolean): void {
    clearTimeout(this.#timer);
    if (!visible) return;
    this.#chart ??= new RateChart(field(this.#root, "rates"));
    write(field(this.#root, "rates-zone"), `Times in ${localZoneText(Date.now())}`);
    this.#restart();
  }

  restyle(): void {
    this.#chart?.restyle();
  }

  #restart(): void {
    clearTimeout(this.#timer);
    const timer = (this.#timer = window.setTimeout(() => undefined));
    const loaded = this.#load().catch((error: Error) => {
      this.#note(`The answer could not be shown: ${error.message}`);
      return true;
    });
    void loaded.then((again) => {
      if (this.#timer === timer && again) this.#timer = window.setTimeout(() => this.#restart(), INTERVAL_MS);
    });
  }

  /** Requests once. False where another request would be of no use before the user acts. */
  async #load(): Promise<boolean> {
    const headers: HeadersInit = this.#token === "" ? {} : { Authorization: `Bearer ${this.#token}` };
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const response = await fetch("/v1/operator", { headers, cache: "no-store", signal }).catch(() => null);
    if (response !== null && !response.ok) return this.#refused(response);
    // An incomplete answer counts as none.
    const answer = ((await response?.json().catch(() => null)) ?? null) as OperatorAnswer | null;
    if (answer === null) {
      this.#note("The server does not answer; the values below are old.");
    } else {
      this.#show(answer);
      this.#gate("open", "");
    }
    return true;
  }

  async #refused(response: Response): Promise<boolean> {
    const answer = (await response.json().catch(() => null)) as { error?: { message?: string } } | null;
    const message = answer?.error?.message ?? `The server answered ${response.status}.`;
    if (response.status === 401) {
      const wrong = this.#token !== "" ? "The server refused this token. " : "";
      this.#token = "";
      rememberToken("");
      this.#gate("token", `${wrong}This view shows addresses of clients, so the server requires its operator token.`);
    } else if (response.status === 403) {
      this.#gate("refused", message);
    } else if (response.status === 404) {
      this.#gate("refused", "This server has no operator’s view.");
    } else {
      this.#note(message);
      return true;
    }
    return false;
  }

  /** Shows the board, or the reason why it is closed, with a field for the token where the server requires one. */
  #gate(access: "open" | "token" | "refused", text: string): void {
    const before = this.#root.dataset["access"];
    mark(this.#root, "access", access);
    field(this.#root, "gate").hidden = access === "open";
    field(this.#root, "board").hidden = access !== "open";
    write(field(this.#root, "gate-text"), text);
    field(this.#root, "token-label").hidden = field(this.#root, "token-button").hidden = access !== "token";
    if (access !== "token") return;
    const token = field<HTMLInputElement>(this.#root, "token");
    if (before !== "token") token.focus();
    token.select();
  }

  #note(text: string): void {
    write(field(this.#root, "operator-note"), text);
  }

  #show(answer: OperatorAnswer): void {
    const rates = new Rates(answer, this.#before);
    this.#before = answer;
    this.#note(answer.not_ready === null ? "" : `Not ready: ${answer.not_ready}`);
    const [sequenced, records, packets] = [
      rates.sequencer("sequencer_records"),
      rates.total("records"),
      rates.total("packets"),
    ];
    this.#total("clients", countText(rates.level("clients")));
    this.#total("audiences", countText(rates.level("audiences")));
    this.#total("catching_up", countText(rates.level("catching_up")));
    this.#total("sequenced", compactText(Math.round(sequenced)));
    this.#total("records", compactText(Math.round(records)));
    this.#total("packets", compactText(Math.round(packets)));
    this.#total("packet_bytes", bytesText(rates.total("packet_bytes")));
    this.#total("uptime", spanText(answer.uptime_ms / 1000));
    this.#chart?.add(Date.now(), { in: sequenced, out: records, sends: packets });
    showFacts(field(this.#root, "facts"), answer);
    showRows(field(this.#root, "shards"), rates.shards.map(shardCells));
    showRows(field(this.#root, "sources"), answer.sources.map(sourceCells));
    write(
      field(this.#root, "sources-note"),
      answer.sources.length === 0 ? "No feed, and no publisher is connected." : "",
    );
    part(this.#root, ".sources .wide").hidden = answer.sources.length === 0;
    const rings = new Map(answer.shards.map((shard) => [shard.shard, shard.ring.capacity_bytes]));
    showRows(
      field(this.#root, "slow"),
      answer.slow.map((client) => slowCells(client, rings.get(client.shard) ?? Infinity)),
    );
    const none = answer.slow.length === 0 ? "No client is behind." : `${answer.slow.length} behind, the longest first`;
    write(field(this.#root, "slow-note"), none);
    part(this.#root, ".slow .wide").hidden = answer.slow.length === 0;
  }

  #total(name: string, text: string): void {
    write(part(this.#root, `[data-total="${name}"]`), text);
  }
}

/** The content of a cell: a text, or a bar for a share from 0 to 1 with a text. */
type Cell = string | { readonly share: number; readonly text: string };

function shardCells({ shard, rate }: ShardRates): Cell[] {
  const { backlog_bytes: backlog, capacity_bytes: capacity } = shard.ring;
  const per = (counter: string): string => compactText(Math.round(rate(counter)));
  return [
    String(shard.shard),
    String(shard.core),
    countText(shard.levels["clients"] ?? NaN),
    countText(shard.levels["audiences"] ?? NaN),
    countText(shard.levels["catching_up"] ?? NaN),
    per("records_read"),
    per("records"),
    per("packets"),
    bytesText(rate("packet_bytes")),
    per("conflated"),
    { share: backlog / capacity, text: `${bytesText(backlog)} of ${bytesText(capacity)}` },
    spanText((shard.levels["history_ms"] ?? 0) / 1000),
    millisText((shard.levels["tick_ns_max"] ?? NaN) / 1e6),
    countText(shard.counters["overruns"] ?? NaN),
  ];
}

function sourceCells(source: Source): Cell[] {
  return [
    String(source.source),
    source.kind,
    source.state,
    countText(source.instruments),
    compactText(source.records_per_s),
    countText(source.records),
    source.silent_ms === null ? NONE : `${millisText(source.silent_ms)} ago`,
    [source.name ?? NONE, source.problem].filter((text) => text !== null).join(" "),
  ];
}

function slowCells(client: SlowClient, capacity: number): Cell[] {
  const state = client.closing ? "closing" : client.blocked ? "socket full" : "catching up";
  return [
    String(client.shard),
    String(client.slot),
    (client.address ?? NONE) + (client.proxy === null ? "" : ` via ${client.proxy}`),
    millisText(client.behind_ms),
    millisText(client.nothing_taken_ms),
    bytesText(client.pending_bytes),
    ringText(client.ring_bytes, capacity),
    countText(client.items),
    client.conflate_ms === null ? "mixed" : client.conflate_ms === 0 ? "all" : `${client.conflate_ms} ms`,
    client.encoding,
    state,
  ];
}

/** Sets the rows of a table's body, and writes only differences. */
function showRows(body: HTMLElement, rows: readonly Cell[][]): void {
  while (body.children.length > rows.length) body.lastElementChild?.remove();
  for (const [at, cells] of rows.entries()) {
    const row = body.children[at] ?? body.appendChild(rowOf(cells));
    cells.forEach((cell, column) => showCell(row.children[column] as HTMLElement, cell));
  }
}

function rowOf(cells: readonly Cell[]): HTMLElement {
  const row = make("tr");
  for (const cell of cells) {
    const data = make("td");
    if (typeof cell !== "string") data.append(make("meter"), make("span"));
    row.append(data);
  }
  return row;
}

function showCell(data: HTMLElement, cell: Cell): void {
  if (typeof cell === "string") return write(data, cell);
  write(part(data, "span"), cell.text);
  const meter = part<HTMLMeterElement>(data, "meter");
  meter.value = cell.share;
  attribute(meter, "aria-label", cell.text);
}

/** Position, levels and counters of the whole server. */
function showFacts(list: HTMLElement, answer: OperatorAnswer): void {
  const { position, levels, counters } = answer.sequencer;
  const facts = new Map<string, string>([
    ["Position", countText(position)],
    ["Epoch", String(answer.epoch)],
  ]);
  for (const [name, value] of Object.entries(levels)) facts.set(wordsOf(name), countText(value));
  for (const [name, value] of Object.entries(counters)) facts.set(wordsOf(name), countText(value));
  const known = new Map([...list.children].map((child) => [(child as HTMLElement).dataset["fact"], child]));
  for (const [name, text] of facts) {
    let fact = known.get(name);
    if (fact === undefined) {
      const made = make("div");
      made.dataset["fact"] = name;
      made.append(make("dt", name), make("dd"));
      fact = list.appendChild(made);
    }
    write(part(fact, "dd"), text);
  }
}

function recallToken(): string {
  try {
    return sessionStorage.getItem(TOKEN) ?? "";
  } catch {
    return "";
  }
}

function rememberToken(token: string): void {
  try {
    if (token === "") sessionStorage.removeItem(TOKEN);
    else sessionStorage.setItem(TOKEN, token);
  } catch {
    // Storage is refused: the token is kept until the page is left.
  }
}
