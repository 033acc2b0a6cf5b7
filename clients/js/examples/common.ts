/** The common part of all examples: the server's URL, and a line with the state of the connection. */

import { connect, type Client } from "tickcast";

export const server = new URLSearchParams(location.search).get("server") ?? "http://127.0.0.1:9001";

export const view = document.getElementById("view")!;

export function start(): Client {
  const client = connect({ url: server, conflateMs: 100 });
  const line = document.getElementById("status")!;
  const show = (): void => {
    const { phase, reason } = client.connection;
    const { latencyP50Ms, updatesPerSecond } = client.stats;
    const figures = `${updatesPerSecond} updates/s, latency ${latencyP50Ms.toFixed(0)} ms, worker: ${client.worker}`;
    line.textContent = `${server}: ${phase}${reason && `, ${reason}`}; ${figures}`;
  };
  client.on("connection", show);
  setInterval(show, 1000);
  return client;
}
