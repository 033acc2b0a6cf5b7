/** The page side of tokens: calls the application's function, and adds the token to requests of the HTTP API. */

import { verify } from "./check";
import type { ConnectOptions, TokenRequest } from "./types";

/** The server takes no longer ones. */
const TOKEN_BYTES_MAX = 8192;
/** The value is a secret, and is in no message. */
const isToken = (token: unknown): token is string =>
  typeof token === "string" && token.length <= TOKEN_BYTES_MAX && /^[!-~]*$/.test(token);

export class Tokens {
  /** The token that was used last. */
  #last: string | undefined;
  #call: Promise<string> | undefined;

  constructor(readonly given: NonNullable<ConnectOptions["token"]>) {
    if (typeof given === "string") this.#last = checked(given);
  }

  /** The token; "" for none. One call of the function at a time: further requests get its result. */
  obtain(why: TokenRequest): Promise<string> {
    const { given } = this;
    if (typeof given === "string") return Promise.resolve(given);
    return (this.#call ??= Promise.resolve(why)
      .then(given)
      .then((token) => (this.#last = checked(token ?? "")))
      .finally(() => (this.#call = undefined)));
  }

  /** A request with the token; once more with another one where it is refused. Other servers are sent none. */
  async fetch(target: string | URL, base: string, init: RequestInit = {}): Promise<Response> {
    const server = base.replace(/^ws/, "http");
    const url = new URL(target, server);
    if (url.origin !== new URL(server).origin) return fetch(url, init);
    const send = (token: string): Promise<Response> => {
      const headers = new Headers(init.headers);
      if (token) headers.set("authorization", `Bearer ${token}`);
      return fetch(url, { ...init, headers });
    };
    const answer = await send(this.#last ?? (await this.obtain({ reason: "connect", message: "" })));
    if (answer.status !== 401 || typeof this.given === "string") return answer;
    return send(await this.obtain({ reason: "refused", message: "an HTTP request was refused with 401" }));
  }
}

function checked(token: unknown): string {
  const expected = `at most ${TOKEN_BYTES_MAX} visible ASCII characters`;
  if (!isToken(token)) verify("token", `a ${typeof token}`, [() => false, expected]);
  return token as string;
}
