/** The stream side as a file: the script of a worker, or loaded onto the page's thread where no worker starts. */

import { Engine } from "./engine";
import { NAME, type Command, type Report } from "./messages";
import type { WebSocketConstructor } from "./types";

/** A handler of commands: the first one creates the engine. */
export function engineFor(
  report: (report: Report) => void,
  Socket: WebSocketConstructor = globalThis.WebSocket,
): (commands: Command[]) => void {
  let engine: Engine | undefined;
  return (commands) => {
    for (const command of commands) if (command.t === "open") engine = new Engine(command.settings, Socket, report);
    engine?.handle(commands);
  };
}

/** In a worker of ours, serves the page; elsewhere does nothing. */
function serve(): void {
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

serve();
