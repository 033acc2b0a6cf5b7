// Controls one Chromium for all tests of this folder: requests as JSON lines on stdin, answers on stdout, `{id, value}`
// or `{id, error}`. It exits, and closes the browser, when stdin is closed. The scenarios are in the Rust files.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";

const [installed, executablePath] = process.argv.slice(2);
const require = createRequire(`${installed}/package.json`);
const { chromium } = require("playwright-core");
const helpers = readFileSync(new URL("in-page.js", import.meta.url), "utf8");

const browser = await chromium.launch({
  executablePath,
  headless: true,
  // Pages can reach this machine only.
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
});

const contexts = new Map();
const pages = new Map();
let lastId = 0;

/** A new page, with a log of its console, exceptions, requests, responses and saved files. */
async function open({ context: name, ...options }) {
  let context = contexts.get(name);
  if (context === undefined) {
    context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
    context.setDefaultTimeout(40_000);
    contexts.set((name = ++lastId), context);
    await context.addInitScript(helpers);
  }
  const page = await context.newPage();
  const log = { console: [], errors: [], requests: [], responses: [], downloads: [] };
  page.on("console", (message) => {
    log.console.push({ type: message.type(), text: message.text(), url: message.location().url });
  });
  page.on("pageerror", (error) => log.errors.push(String(error.stack ?? error)));
  page.on("request", (request) => log.requests.push(request.url()));
  page.on("websocket", (socket) => log.requests.push(socket.url()));
  page.on("response", (response) => {
    const [url, status] = [response.url(), response.status()];
    // Rejects if the page was left or closed meanwhile.
    response.allHeaders().then((headers) => log.responses.push({ url, status, headers }), () => {});
  });
  page.on("download", async (file) => {
    const bytes = readFileSync(await file.path()).toString("latin1");
    log.downloads.push({ name: file.suggestedFilename(), bytes });
  });
  const id = ++lastId;
  pages.set(id, { page, log, cdp: await context.newCDPSession(page) });
  return { page: id, context: name };
}

/** Evaluates in the page regardless of its policy, as the developer console does. */
async function evaluate({ cdp }, expression) {
  const params = { expression, awaitPromise: true, returnByValue: true };
  const { result, exceptionDetails: thrown } = await cdp.send("Runtime.evaluate", params);
  if (thrown !== undefined) throw new Error(thrown.exception?.description ?? thrown.text);
  return result.value ?? null;
}

/** Evaluates until the value is truthy, and returns it. */
async function until(held, { expression, ms }) {
  const deadline = Date.now() + ms;
  for (let last; ; ) {
    try {
      const value = await evaluate(held, expression);
      if (value) return value;
      last = value;
    } catch (error) {
      // While a page is loading, there is no context to evaluate in.
      last = error;
    }
    if (Date.now() > deadline) {
      const found = last instanceof Error ? last.message : JSON.stringify(last);
      throw new Error(`still ${found} after ${ms} ms: ${expression}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}

/** The serious and critical violations that axe finds. */
async function violations(held) {
  await evaluate(held, `${readFileSync(require.resolve("axe-core/axe.min.js"), "utf8")}; null`);
  const found = await evaluate(held, "axe.run(document, { resultTypes: ['violations'] })");
  const severe = found.violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const first = (nodes) => nodes.slice(0, 3).map(({ html, failureSummary }) => `${html} ${failureSummary}`);
  return severe.map(({ id, impact, help, nodes }) => ({ id, impact, help, count: nodes.length, first: first(nodes) }));
}

const operations = {
  open,
  goto: ({ page }, { url }) => page.goto(url, { waitUntil: "commit" }).then(() => null),
  reload: ({ page }) => page.reload({ waitUntil: "commit" }).then(() => null),
  evaluate: (held, { expression }) => evaluate(held, expression),
  until,
  press: ({ page }, { key }) => page.keyboard.press(key),
  type: ({ page }, { text }) => page.keyboard.type(text),
  click: ({ page }, { selector }) => page.locator(selector).first().click(),
  tap: ({ page }, { selector }) => page.locator(selector).first().tap(),
  screenshot: ({ page }, { path }) => page.screenshot({ path }).then(() => null),
  /** Answers requests for `url`, a pattern, with `status` and `body`, which a function makes of the requested URL. */
  route: ({ page }, { url, answer }) => {
    const make = eval(answer);
    return page.route(url, (route) => {
      const { status = 200, body } = make(new URL(route.request().url()));
      return route.fulfill({ status, contentType: "application/json", body: JSON.stringify(body) });
    });
  },
  emulate: ({ page }, { media }) => page.emulateMedia(media),
  cdp: ({ cdp }, { method, params }) => cdp.send(method, params),
  violations,
  log: ({ log }) => log,
  close: async ({ page }) => {
    const context = page.context();
    for (const [id, held] of pages) if (held.page === page) pages.delete(id);
    await page.close();
    if (context.pages().length > 0) return null;
    for (const [id, held] of contexts) if (held === context) contexts.delete(id);
    await context.close();
    return null;
  },
};

async function answer({ op, page, ...args }) {
  if (op === "open") return open(args);
  const held = pages.get(page);
  if (held === undefined) throw new Error(`no page ${page}`);
  return (await operations[op](held, args)) ?? null;
}

// If the test's process has exited, the end of stdin is handled below.
process.stdout.on("error", () => {});
const send = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
send({ id: 0, value: browser.version() });
createInterface({ input: process.stdin })
  .on("line", (line) => {
    const request = JSON.parse(line);
    answer(request).then(
      (value) => send({ id: request.id, value }),
      (error) => send({ id: request.id, error: String(error.message ?? error) }),
    );
  })
  .on("close", () => browser.close().finally(() => process.exit(0)));
