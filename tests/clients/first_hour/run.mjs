// The first hour of someone who builds a page: a project of Vite, React and TypeScript, which installs the client from its
// tarball and from its folder, is built, and is opened in Chromium against a server.
//
//   node run.mjs FOLDER BROWSER CHROMIUM
//
// FOLDER has the project with its dependencies, from tests/clients/install; BROWSER has playwright-core, from
// tests/external/browser/install. TICKCAST_BIN is the server. It prints times, and asserts nothing on them.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer as createSocket } from "node:net";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const [folder, browserFolder, executablePath] = process.argv.slice(2);
const { TICKCAST_BIN: program, ...env } = process.env;
const client = fileURLToPath(new URL("../../../clients/js", import.meta.url));
const project = fileURLToPath(new URL("project", import.meta.url));
const app = join(folder, "app");
const WAIT = { timeout: 60_000 };

const ends = [];
try {
  const tarball = pack();
  installFolder();
  installTarball(tarball);
  await open();
} finally {
  for (const end of ends.reverse()) await end();
}

/** Builds the tarball in a copy of the folder that has no dependencies of its own but the two tools of the build. */
function pack() {
  const copy = join(folder, "js");
  rmSync(copy, { recursive: true, force: true });
  const skipped = [join(client, "node_modules"), join(client, "dist")];
  cpSync(client, copy, { recursive: true, filter: (path) => !skipped.includes(path) });
  const out = npm(copy, "pack", "--silent", "--pack-destination", folder).trim().split("\n").at(-1);
  console.log(`packed ${out}: ${readFileSync(join(folder, out)).length} bytes`);
  return join(folder, out);
}

/** An application that installs the folder, as a copy or as a link, has modules and types. */
function installFolder() {
  for (const how of ["--install-links", "--no-install-links"]) installFolderAs(how);
  console.log("installed from the folder");
}

function installFolderAs(how) {
  const linked = join(folder, "linked");
  rmSync(linked, { recursive: true, force: true });
  rmSync(join(folder, "js/dist"), { recursive: true, force: true });
  mkdirSync(linked, { recursive: true });
  writeFileSync(join(linked, "package.json"), '{ "name": "linked", "private": true, "type": "module" }');
  npm(linked, "install", how, "--offline", "--no-audit", "--no-fund", join(folder, "js"));
  const lines = [
    'import { connect, type Client } from "tickcast";',
    'import { followBars } from "tickcast/adapters/lightweight-charts";',
    'export const client: Client = connect("ws://127.0.0.1:9001");',
    "export const follow: typeof followBars = followBars;",
  ];
  writeFileSync(join(linked, "page.ts"), lines.join("\n"));
  const options = ["--strict", "--noEmit", "--module", "esnext", "--moduleResolution", "bundler", "--target", "es2022"];
  run(linked, process.execPath, join(app, "node_modules/typescript/bin/tsc"), ...options, "page.ts");
}

/** Installs the tarball into the project, and builds that. */
function installTarball(tarball) {
  for (const name of readdirSync(project)) cpSync(join(project, name), join(app, name), { recursive: true });
  npm(app, "install", "--offline", "--no-save", "--no-audit", "--no-fund", tarball);
  npm(app, "run", "build");
  console.log("installed from the tarball, and built");
}

/** Opens the built project, and then the same in Vite's development server. */
async function open() {
  const { chromium } = createRequire(join(browserFolder, "package.json"))("playwright-core");
  const vite = await import(pathToFileURL(join(app, "node_modules/vite/dist/node/index.js")));
  // Pages can reach this machine only.
  const args = ["--no-sandbox", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"];
  const browser = await chromium.launch({ executablePath, args });
  ends.push(() => browser.close());
  const at = { host: "127.0.0.1", strictPort: true };
  const common = { root: app, configFile: join(app, "vite.config.ts"), logLevel: "warn" };
  const built = await vite.preview({ ...common, preview: { ...at, port: await freePort() } });
  ends.push(() => built.close());
  const port = await freePort();
  const page = await browser.newPage();
  await forget(page, built.resolvedUrls.local[0], port);
  const dev = await vite.createServer({ ...common, server: { ...at, port: await freePort() } });
  ends.push(() => dev.close());
  await dev.listen();
  for (const [name, { resolvedUrls }] of Object.entries({ "vite preview": built, "vite dev": dev })) {
    await price(name, browser, resolvedUrls.local[0], port);
  }
}

/** Without --allow-origin the page and the log say what is missing; once it is set, the page connects by itself. */
async function forget(page, url, port) {
  const origin = new URL(url).origin;
  const flag = `--allow-origin ${origin}`;
  const lines = [];
  page.on("console", (message) => lines.push(message.text()));
  const refusing = await serve(port);
  await page.goto(`${url}?server=http://127.0.0.1:${port}`);
  await page.locator("[data-error=origin]").waitFor(WAIT);
  const text = await page.locator("[data-error=origin]").innerText();
  assert.ok(text.includes(flag), `the page has no cure: ${text}`);
  assert.ok(lines.some((line) => line.startsWith("tickcast: ") && line.includes(flag)), `no line has it: ${lines}`);
  const log = await refusing.stop();
  assert.ok(log.includes(flag), `the server's log has no cure: ${log}`);
  const admitting = await serve(port, "--allow-origin", origin);
  await page.getByRole("button", { name: "Reconnect now" }).click();
  await page.locator('[data-symbol="EURUSD"][data-state="LIVE"]').waitFor(WAIT);
  console.log(`a refused origin is named with its cure: ${flag}`);
  await page.close();
  await admitting.stop();
}

/** From a cold page to prices in all of its rows. */
async function price(name, browser, url, port) {
  const server = await serve(port, "--allow-origin", new URL(url).origin);
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  const from = performance.now();
  await page.goto(`${url}?server=http://127.0.0.1:${port}`);
  await page.locator('[data-state="LIVE"]').first().waitFor(WAIT);
  const ms = Math.round(performance.now() - from);
  for (const symbol of ["BTC-USD", "EURUSD", "SPY"]) {
    await page.locator(`[data-symbol="${symbol}"] [data-field=bid]`, { hasText: /^\d+(\.\d+)?$/ }).waitFor(WAIT);
  }
  assert.equal(await page.evaluate("client.worker"), "module", `${name}: the worker does not start`);
  assert.deepEqual(errors, [], `${name}: the page has errors`);
  console.log(`${name}: first price after ${ms} ms`);
  await restart(page, errors, server, () => serve(port, "--allow-origin", new URL(url).origin));
  await page.close();
}

/** The chart has the instrument's digits, and keeps its bars over a restart of the server, which it marks. */
async function restart(page, errors, server, again) {
  await page.waitForFunction("series.data().length > 1", null, WAIT).catch((error) => {
    throw new Error(`${error}: ${errors}`);
  });
  const { precision, minMove } = await page.evaluate("series.options().priceFormat");
  assert.deepEqual([precision, minMove], [5, 0.00001], "EURUSD has five decimals");
  const first = await page.evaluate("series.data()[0]");
  await server.stop();
  await page.locator("[data-phase=waiting]").waitFor(WAIT);
  const bars = await page.evaluate("series.data().length");
  const next = await again();
  await page.waitForFunction(`marks.markers().length === 1 && series.data().length > ${bars}`, null, WAIT);
  assert.deepEqual(await page.evaluate("series.data()[0]"), first, "the first bar is gone");
  const times = await page.evaluate("volume.data().map(({ time }) => time)");
  assert.deepEqual(times, await page.evaluate("series.data().map(({ time }) => time)"));
  assert.match(await page.evaluate("marks.markers()[0].text"), /^server away /);
  console.log(`the chart has kept ${bars} bars over a restart`);
  await next.stop();
}

/** Starts a server at a port; its `stop` resolves with the log. */
async function serve(port, ...args) {
  const feed = ["--feed", "sim:instruments=20,rate=2000,seed=1"];
  const child = spawn(program, ["--listen", `127.0.0.1:${port}`, ...feed, ...args], { env, stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  child.stderr.on("data", (text) => (log += text));
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const stop = async () => {
    child.kill("SIGKILL");
    await ended;
    return log;
  };
  ends.push(stop);
  await new Promise((resolve, reject) => {
    let out = "";
    child.stdout.on("data", (text) => (out += text).includes("serving on http://") && resolve());
    child.once("error", reject);
    child.once("exit", () => reject(new Error(`the server ends: ${log}`)));
  });
  return { stop };
}

async function freePort() {
  const probe = createSocket();
  await new Promise((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const { port } = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

function npm(cwd, ...args) {
  return run(cwd, "npm", ...args);
}

/** Runs a program to its end; its output is shown where it fails. */
function run(cwd, command, ...args) {
  try {
    return execFileSync(command, args, { cwd, env, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    throw new Error(`${command} ${args.join(" ")} in ${cwd}: ${error.message}\n${error.stdout}\n${error.stderr}`);
  }
}
