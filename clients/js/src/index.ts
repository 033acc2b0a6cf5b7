/**
 * tickcast: live market data for dashboards.
 *
 * Importing it has no effects; {@link connect} starts everything.
 */

import { OpenClient } from "./client";
import type { Client, ConnectOptions } from "./types";

/** Connects to a server, and reconnects until the client is closed. */
export function connect(options: ConnectOptions | string | URL = {}): Client {
  return new OpenClient(typeof options === "string" || options instanceof URL ? { url: options } : options);
}

export { decimal } from "./format";
export * from "./types";
