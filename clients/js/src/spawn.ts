/**
 * Where the stream's side runs: a module worker of the same file; where that may not be (another origin, a policy), a
 * worker that imports it; and else the page's own thread.
 *
 * What always holds: commands given before it is known reach whoever it is in the end, in order. A worker that cannot
 * be had is no error: nothing is written to the console from here, and `kind` says what it has become.
 */

import { Engine } from "./engine";
import type { Command, Report } from "./messages";
import type { ConnectOptions, WebSocketConstructor } from "./types";

/** True in the one file that is library and worker; false where a bundler puts the worker beside the library. */
declare const __STANDALONE__: boolean;

/** The name by which a worker knows that it is ours: the same file can be a library in another's worker. */
const NAME = "tickcast";
/** A worker that has not answered by then will not; the script is in the browser's cache. */
const START_MS = 5000;

export type Kind = "starting" | "module" | "blob" | "custom" | "none";

export class Port {
  kind: Kind = "starting";
  #worker: Worker | undefined;
  readonly #handle: (commands: Command[]) => void;
  /** Given before it was known who takes them. */
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
    this.#try(isHere ? ["none"] : [...kinds, "none"]);
  }

  post(commands: Command[]): void {
    if (this.#early) this.#early.push(...commands);
    else if (this.#worker) {
      // Who asks for a batch says nothing else with it.
      const [command] = commands;
      this.#worker.postMessage(commands, command.t === "pull" && command.spent ? command.spent.buffers : []);
    } else this.#handle(commands);
  }

  end(): void {
    this.#ended = true;
    this.#worker?.terminate();
    this.#handle([{ t: "close" }]);
  }

  #try([kind, ...others]: Kind[]): void {
    if (this.#ended) return;
    if (kind === "none") return this.#begin(kind);
    let worker: Worker;
    try {
      worker = kind === "custom" ? (this.options.worker as () => Worker)() : start(kind === "blob");
    } catch {
      return this.#try(others);
    }
    this.#worker = worker;
    const instead = (): void => {
      clearTimeout(timer);
      worker.terminate();
      this.#worker = undefined;
      this.#try(others);
    };
    const timer = setTimeout(instead, START_MS);
    worker.onerror = (event) => {
      event.preventDefault();
      instead();
    };
    worker.onmessage = () => {
      clearTimeout(timer);
      worker.onerror = null;
      worker.onmessage = (event: MessageEvent<Report>) => this.report(event.data);
      this.#begin(kind);
    };
  }

  #begin(kind: Kind): void {
    this.kind = kind;
    const early = this.#early!;
    this.#early = null;
    this.post(early);
  }
}

/** Who carries out commands: an engine, begun by the first of them. */
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
  if (__STANDALONE__) return blob ? importing(import.meta.url) : new Worker(import.meta.url, MODULE);
  // Bundlers know this expression, and bring the worker along; it has to stand here as it is.
  if (!blob) return new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "tickcast" });
  return importing(new URL("./worker.js", import.meta.url).href);
}

/** A worker whose script is on another origin: a script of our own that imports it. */
function importing(url: string): Worker {
  const source = new Blob([`import ${JSON.stringify(url)}`], { type: "text/javascript" });
  const object = URL.createObjectURL(source);
  // The source may go once the worker has begun.
  setTimeout(() => URL.revokeObjectURL(object), START_MS);
  return new Worker(object, MODULE);
}

/** In a worker that we have started: serves the page. Elsewhere nothing. */
export function serve(): void {
  const scope = globalThis as unknown as DedicatedScope;
  if (!scope.WorkerGlobalScope || scope.name !== NAME) return;
  const report = (said: Report): void => {
    scope.postMessage(said, said.t === "batch" ? said.batch.buffers : []);
  };
  const handle = engineFor(report);
  scope.onmessage = ({ data }) => handle(data);
  report({ t: "ready" });
}

/** What is used of a worker's scope. */
interface DedicatedScope {
  readonly WorkerGlobalScope?: unknown;
  readonly name?: string;
  onmessage: ((event: { data: Command[] }) => void) | null;
  postMessage(report: Report, transfer: ArrayBuffer[]): void;
}
