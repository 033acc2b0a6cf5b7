/**
 * Starts the stream side, which is a file of its own: in a module worker; where that is refused (another origin, a
 * policy), in a worker that imports the file; otherwise on the page's own thread.
 *
 * What always holds: commands that are posted before one of these has started reach it, in order. A worker that does
 * not start is no error: nothing is written to the console from here, and `kind` says which one runs.
 */

import { NAME, NO_CONNECTION, type Command, type Report } from "./messages";
import type { ConnectOptions } from "./types";

/** True in the files for script tags; false where a bundler includes the stream side. */
declare const __STANDALONE__: boolean;

/** The time for a worker to start; its script is in the browser's cache already. */
const START_MS = 5000;

export type Kind = "starting" | "module" | "blob" | "custom" | "none";

export class Port {
  kind: Kind = "starting";
  #worker: Worker | undefined;
  /** Where there is no worker. */
  #handle: ((commands: Command[]) => void) | undefined;
  /** Commands that were posted before the stream side started; null afterwards. */
  #early: Command[] | null = [];
  #ended = false;

  constructor(
    readonly options: ConnectOptions,
    readonly report: (report: Report) => void,
  ) {
    const { worker, WebSocket: own } = options;
    const kinds: Kind[] = typeof worker === "function" ? ["custom"] : ["module", "blob"];
    const isHere = worker === false || own || !globalThis.Worker;
    // As in Node 20: every attempt would fail alike.
    if (isHere && !own && !globalThis.WebSocket) {
      throw new TypeError("WebSocket: there is none here: expected connect({ url, WebSocket }), with that of ws in Node");
    }
    this.#start(isHere ? ["none"] : [...kinds, "none"]);
  }

  post(commands: Command[]): void {
    if (this.#early) this.#early.push(...commands);
    else if (this.#worker) {
      // A pull is posted alone.
      const [command] = commands;
      this.#worker.postMessage(commands, command.t === "pull" && command.spent ? command.spent.buffers : []);
    } else this.#handle!(commands);
  }

  end(): void {
    this.#ended = true;
    this.#worker?.terminate();
    this.#handle?.([{ t: "close" }]);
  }

  #start([kind, ...others]: Kind[]): void {
    if (this.#ended) return;
    if (kind === "none") return loaded ? this.#startHere(loaded) : void this.#load();
    let worker: Worker;
    try {
      worker = kind === "custom" ? (this.options.worker as () => Worker)() : start(kind === "blob");
    } catch {
      return this.#start(others);
    }
    this.#worker = worker;
    const tryOthers = (): void => {
      clearTimeout(timer);
      worker.terminate();
      this.#worker = undefined;
      this.#start(others);
    };
    const timer = setTimeout(tryOthers, START_MS);
    worker.onerror = (event) => {
      event.preventDefault();
      tryOthers();
    };
    worker.onmessage = () => {
      clearTimeout(timer);
      worker.onerror = null;
      worker.onmessage = (event: MessageEvent<Report>) => this.report(event.data);
      this.#started(kind);
    };
  }

  async #load(): Promise<void> {
    try {
      loaded = await load();
      this.#startHere(loaded);
    } catch (error) {
      const reason = `the stream side cannot be loaded: ${error}`;
      this.report({ t: "error", error: { code: "closed", message: reason, symbols: [] } });
      this.report({ t: "connection", connection: { ...NO_CONNECTION, phase: "closed", reason } });
    }
  }

  #startHere({ engineFor }: StreamSide): void {
    if (this.#ended) return;
    this.#handle = engineFor(this.report, this.options.WebSocket);
    this.#started("none");
  }

  #started(kind: Kind): void {
    this.kind = kind;
    const early = this.#early!;
    this.#early = null;
    this.post(early);
  }
}

const MODULE = { type: "module", name: NAME } as const;

type StreamSide = typeof import("./worker");

/** The stream side, once the page's thread has it. */
let loaded: StreamSide | undefined;

/** Loads the stream side onto the page's thread. It is a file of its own, which pages with a worker do not load here. */
const load = (): Promise<StreamSide> => import("./worker");

function start(blob: boolean): Worker {
  if (__STANDALONE__) {
    const url = new URL("./tickcast-stream.js", import.meta.url);
    return blob ? importingWorker(url.href) : new Worker(url, MODULE);
  }
  // Bundlers recognise exactly this expression, and include the worker.
  if (!blob) return new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "tickcast" });
  return importingWorker(new URL("./worker.js", import.meta.url).href);
}

/** A worker for a script of another origin: its own script is a blob that imports it. */
function importingWorker(url: string): Worker {
  const source = new Blob([`import ${JSON.stringify(url)}`], { type: "text/javascript" });
  const object = URL.createObjectURL(source);
  // The URL may be revoked once the worker has started.
  setTimeout(() => URL.revokeObjectURL(object), START_MS);
  return new Worker(object, MODULE);
}
