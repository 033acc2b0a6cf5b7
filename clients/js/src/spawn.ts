/**
 * Starts the stream side: in a module worker of the same file; where that is refused (another origin, a policy), in a
 * worker that imports the file; otherwise on the page's own thread.
 *
 * What always holds: commands that are posted before one of these has started reach it, in order. A worker that does
 * not start is no error: nothing is written to the console from here, and `kind` says which one runs.
 */

import { Engine } from "./engine";
import type { Command, Report } from "./messages";
import type { ConnectOptions, WebSocketConstructor } from "./types";

/** True in the one file that is library and worker; false where a bundler makes the worker a file of its own. */
declare const __STANDALONE__: boolean;

/** The name of our workers. In a worker with another name the same file is only the library. */
const NAME = "tickcast";
/** The time for a worker to start; its script is in the browser's cache already. */
const START_MS = 5000;

export type Kind = "starting" | "module" | "blob" | "custom" | "none";

export class Port {
  kind: Kind = "starting";
  #worker: Worker | undefined;
  readonly #handle: (commands: Command[]) => void;
  /** Commands that were posted before the stream side started; null afterwards. */
  #early: Command[] | null = [];
  #ended = false;

  constructor(
    readonly options: ConnectOptions,
    readonly report: (report: Report) => void,
  ) {
    const { worker, WebSocket: own } = options;
    this.#handle = engineFor(report, own);
    const kinds: Kind[] = typeof worker === "function" ? ["custom"] : ["module", "blob"];
    const isHere = worker === false || own || !globalThis.Worker;
    this.#start(isHere ? ["none"] : [...kinds, "none"]);
  }

  post(commands: Command[]): void {
    if (this.#early) this.#early.push(...commands);
    else if (this.#worker) {
      // A pull is posted alone.
      const [command] = commands;
      this.#worker.postMessage(commands, command.t === "pull" && command.spent ? command.spent.buffers : []);
    } else this.#handle(commands);
  }

  end(): void {
    this.#ended = true;
    this.#worker?.terminate();
    this.#handle([{ t: "close" }]);
  }

  #start([kind, ...others]: Kind[]): void {
    if (this.#ended) return;
    if (kind === "none") return this.#started(kind);
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

  #started(kind: Kind): void {
    this.kind = kind;
    const early = this.#early!;
    this.#early = null;
    this.post(early);
  }
}

/** A handler of commands: the first one creates the engine. */
function engineFor(
  report: (report: Report) => void,
  Socket: WebSocketConstructor = globalThis.WebSocket,
): (commands: Command[]) => void {
  let engine: Engine | undefined;
  return (commands) => {
    for (const command of commands) if (command.t === "open") engine = new Engine(command.settings, Socket, report);
    engine?.handle(commands);
  };
}

const MODULE = { type: "module", name: NAME } as const;

function start(blob: boolean): Worker {
  if (__STANDALONE__) return blob ? importingWorker(import.meta.url) : new Worker(import.meta.url, MODULE);
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

/** In a worker of ours, serves the page; elsewhere does nothing. */
export function serve(): void {
  const scope = globalThis as unknown as DedicatedScope;
  if (!scope.WorkerGlobalScope || scope.name !== NAME) return;
  const report = (one: Report): void => {
    scope.postMessage(one, one.t === "batch" ? one.batch.buffers : []);
  };
  const handle = engineFor(report);
  scope.onmessage = ({ data }) => handle(data);
  report({ t: "ready" });
}

/** The used part of a worker's global scope. */
interface DedicatedScope {
  readonly WorkerGlobalScope?: unknown;
  readonly name?: string;
  onmessage: ((event: { data: Command[] }) => void) | null;
  postMessage(report: Report, transfer: ArrayBuffer[]): void;
}
