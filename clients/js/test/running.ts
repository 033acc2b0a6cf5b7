/** Servers of the tests: the binary in TICKCAST_BIN, or else of the target folder, and clients of them. */

import { spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import { afterEach } from "vitest";
import WebSocket from "ws";
import { connect } from "../src/index";
import type { Client, ConnectOptions } from "../src/types";

const built = ["release", "debug"].map((name) => new URL(`../../../target/${name}/tickcast`, import.meta.url).pathname);
export const program = [process.env.TICKCAST_BIN, ...built].find((path) => path !== undefined && existsSync(path));
if (program === undefined) console.log("SKIPPED: no server binary: run cargo build, or set TICKCAST_BIN");

// The server reads variables with this prefix as settings.
const { TICKCAST_BIN: _, ...env } = process.env;

export const open: { close(): unknown }[] = [];
afterEach(() => {
  for (const one of open.splice(0).reverse()) one.close();
});

const MARKET = "sim:instruments=20,rate=2000,seed=1";

export class Running {
  readonly #child: ChildProcess;
  #output = "";

  constructor(
    readonly port: number,
    args: string[],
  ) {
    const own = ["--listen", `127.0.0.1:${port}`, "--log", "info", ...args];
    this.#child = spawn(program!, own, { env, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) stream.on("data", (text) => (this.#output += text));
    open.push(this);
  }

  /** Resolves when the server is ready. */
  async ready(): Promise<this> {
    for (;;) {
      const answer = await fetch(`http://127.0.0.1:${this.port}/readyz`).catch(() => null);
      if (answer?.ok === true) return this;
      if (this.#child.exitCode !== null) throw new Error(`the server ended: ${this.#output}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Kills the process, and resolves when it has exited. */
  async kill(): Promise<void> {
    const exited = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.kill("SIGKILL");
    await exited;
  }

  close(): void {
    this.#child.kill("SIGKILL");
  }
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const { port } = probe.address() as { port: number };
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

export async function start(...args: string[]): Promise<Running> {
  const feed = args.includes("--feed") ? [] : ["--feed", MARKET];
  return new Running(await freePort(), [...feed, ...args]).ready();
}

export function clientOf(port: number, options: ConnectOptions = {}): Client {
  const client = connect({ url: `ws://127.0.0.1:${port}`, WebSocket: WebSocket as never, ...options });
  open.push(client);
  return client;
}

/** Resolves when a condition holds, checked at every frame, change of the connection and release. */
export function until(client: Client, holds: () => boolean): Promise<void> {
  return new Promise((resolve) => {
    const ends: (() => void)[] = [];
    const check = (): void => {
      if (!holds()) return;
      for (const end of ends.splice(0)) end();
      resolve();
    };
    ends.push(client.onFrame(check), client.on("connection", check), client.on("released", check));
    check();
  });
}
