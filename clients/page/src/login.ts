/**
 * The login state: the button in the top bar, the dialog with a field for a token or an API key, and the client's
 * function for tokens, which waits for the user where the server needs a token.
 *
 * What always holds: a token is in memory and in sessionStorage, for this tab, and nowhere else; one that the server
 * has refused is forgotten. The dialog opens by itself once for each token that is needed, and while prices come only to
 * say that the token which was just given is refused.
 */

import type { Client, TokenRequest } from "tickcast";
import { attribute, field, mark, part, write } from "./dom.ts";
import { type LoginState, buttonText, needsRenewal, stateText } from "./login-text.ts";

const TOKEN = "tickcast.token";

export class Login {
  readonly #dialog: HTMLDialogElement;
  readonly #button: HTMLElement;
  #client: Client | null = null;
  #token = recallToken();
  /** Continues the client with a token, while it waits for one. */
  #answer: ((token: string) => void) | null = null;
  /** The dialog was opened for the token that is waited for. */
  #hasOpened = false;
  /** The end of the client was told. */
  #hasToldEnd = false;

  constructor(dialog: HTMLDialogElement, button: HTMLElement) {
    this.#dialog = dialog;
    this.#button = button;
    button.addEventListener("click", () => this.open());
    field(dialog, "login-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const input = field<HTMLInputElement>(dialog, "login-token");
      const token = input.value.trim();
      input.value = "";
      this.#logIn(token);
    });
    part(dialog, "[data-action=without]").addEventListener("click", () => this.#settle(""));
    part(dialog, "[data-action=logout]").addEventListener("click", () => {
      this.#keep("");
      location.reload();
    });
    part(dialog, "[data-action=close-login]").addEventListener("click", () => dialog.close());
  }

  /** The client's function for tokens. */
  readonly provide = (why: TokenRequest): string | Promise<string> => {
    if (why.reason === "connect") return this.#token;
    // A site that logs in by a cookie renews it by itself, and the next connection brings it.
    if (why.reason !== "required" && this.#token === "") return "";
    if (why.reason === "refused") this.#keep("");
    this.#say(why.reason === "refused" ? `The server did not accept the token: ${plain(why.message)}.` : "");
    this.#hasOpened = false;
    if (why.reason === "refused" && this.#client?.connection.phase === "live") this.open();
    return new Promise((resolve) => (this.#answer = resolve));
  };

  /** From here on the client's connection is shown. */
  follow(client: Client): void {
    this.#client = client;
    this.show();
  }

  /** The client waits for a token, and shows no prices until it has one. */
  get isNeeded(): boolean {
    return this.#answer !== null && this.#client?.connection.phase !== "live";
  }

  /** The client has ended for a reason that another token may change. */
  get hasEnded(): boolean {
    const { phase, code } = this.#client?.connection ?? { phase: "connecting", code: 0 };
    return phase === "closed" && (code === 4001 || code === 4003);
  }

  /** Shows the state; called several times a second and at each change. */
  show(): void {
    if (this.#client === null) return;
    const { connection } = this.#client;
    const state: LoginState = { connection, hasToken: this.#token !== "", isAsked: this.#answer !== null };
    if (this.hasEnded) this.#ended(connection.reason);
    const text = this.hasEnded ? "Log in" : buttonText(state);
    const renew = needsRenewal(state, Date.now());
    this.#button.hidden = text === "";
    write(this.#button, renew ? `${text}: expires soon` : text);
    mark(this.#button, "login", this.hasEnded || connection.user === "" ? "out" : renew ? "expiring" : "in");
    attribute(this.#button, "aria-label", connection.user === "" ? text : `Login: ${this.#button.textContent}`);
    write(field(this.#dialog, "login-state"), this.hasEnded ? "Not logged in." : stateText(state, Date.now()));
    part(this.#dialog, "[data-action=logout]").hidden = !state.hasToken;
    part(this.#dialog, "[data-action=without]").hidden = this.#answer === null || connection.phase === "live";
    field(this.#dialog, "login-form").hidden = text === "";
    if ((this.isNeeded || this.hasEnded) && !this.#hasOpened) this.open();
  }

  /** What of the market is not shown to this user. */
  showRights(text: string): void {
    write(field(this.#dialog, "login-rights"), text);
  }

  open(): void {
    this.#hasOpened = true;
    if (!this.#dialog.open) this.#dialog.showModal();
    if (!field(this.#dialog, "login-form").hidden) field(this.#dialog, "login-token").focus();
  }

  /** A token of the user: for the client that waits for one, else for a new client. */
  #logIn(token: string): void {
    if (/[^!-~]/.test(token) || token.length > 8192) {
      return this.#say("This is no token: expected at most 8,192 visible ASCII characters.");
    }
    const isKept = this.#keep(token);
    if (this.#answer !== null) return this.#settle(token);
    if (isKept) location.reload();
    else this.#say("This browser keeps nothing for a tab, so that the page cannot log in after it was loaded.");
  }

  #settle(token: string): void {
    const answer = this.#answer;
    this.#answer = null;
    this.#say("");
    this.#dialog.close();
    answer?.(token);
    this.show();
  }

  /** Its token is of no use any more. */
  #ended(reason: string): void {
    if (this.#hasToldEnd) return;
    this.#hasToldEnd = true;
    this.#keep("");
    this.#say(`The server has ended the session: ${plain(reason)}.`);
    this.#answer = null;
    this.#hasOpened = false;
  }

  #say(text: string): void {
    write(field(this.#dialog, "login-message"), text);
  }

  /** False where the browser keeps nothing. */
  #keep(token: string): boolean {
    this.#token = token;
    try {
      if (token === "") sessionStorage.removeItem(TOKEN);
      else sessionStorage.setItem(TOKEN, token);
      return true;
    } catch {
      return false;
    }
  }
}

function recallToken(): string {
  try {
    return sessionStorage.getItem(TOKEN) ?? "";
  } catch {
    return "";
  }
}

/** What the server said of a token, without the name of the field. */
function plain(message: string): string {
  return message.replace(/^token: /, "");
}
