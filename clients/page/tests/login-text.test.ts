import { expect, test } from "vitest";
import { type LoginState, buttonText, depthText, needsRenewal, rightsText, stateText } from "../src/login-text.ts";

type Given = Partial<LoginState["connection"]> & Partial<LoginState>;

function state({ hasToken = true, isAsked = false, ...of }: Given): LoginState {
  const connection = { phase: "live", user: "", expiresAt: 0, login: "none", ...of } as const;
  return { connection, hasToken, isAsked };
}

test.each([
  [{}, "", "This server does not ask who you are."],
  [{ login: "optional" }, "Log in", "Not logged in. You see what is open to all."],
  [{ phase: "connecting", isAsked: true }, "Log in", "Not logged in. This server needs a token or an API key."],
  [{ user: "u-17", login: "required" }, "u-17", "Logged in as u-17. This login does not expire."],
  [{ user: "u-17", expiresAt: 591_000 }, "u-17", "Logged in as u-17. It expires in 9 min 50 s."],
  [{ user: "u-17", hasToken: false }, "u-17", "Logged in as u-17, by a cookie of this site. This login does not expire."],
  [{ user: "u-17", expiresAt: 500 }, "u-17", "Logged in as u-17. It has expired: the server is about to disconnect."],
] as [Given, string, string][])("%j", (given, button, text) => {
  expect([buttonText(state(given)), stateText(state(given), 1000)]).toEqual([button, text]);
});

test("a login that the user has to renew says so in its last minute and a half", () => {
  const asked = { user: "u", isAsked: true };
  expect(needsRenewal(state({ ...asked, expiresAt: 60_000 }), 0)).toBe(true);
  expect(needsRenewal(state({ ...asked, expiresAt: 600_000 }), 0)).toBe(false);
  expect(needsRenewal(state({ ...asked, expiresAt: 0 }), 0)).toBe(false);
  expect(needsRenewal(state({ user: "u", expiresAt: 60_000 }), 0)).toBe(false);
});

test("what is not shown has words", () => {
  const none = { denied: [], limited: [], delayed: [] };
  expect([rightsText(none), depthText(none)]).toEqual(["", ""]);
  expect(rightsText({ ...none, limited: ["*"] })).toBe(
    "Some symbols or channels are not among your rights, and are not shown.",
  );
  expect(rightsText({ ...none, denied: ["*"], delayed: ["*"] })).toBe(
    "No symbol is among your rights. Your right to some of them is to delayed data, which is not served here.",
  );
  expect(depthText({ denied: ["A"], delayed: [] })).toBe("The depth is not among your rights");
  expect(depthText({ denied: ["A"], delayed: ["A"] })).toContain("delayed depth");
});
