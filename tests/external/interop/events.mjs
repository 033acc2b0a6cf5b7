// Node, npm's eventsource: node events.mjs URL. Reads through a proxy of its own that closes the connection several times;
// the EventSource reconnects by itself. Prints its results as one line of JSON, or fails.
import net from 'node:net';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const entry = path.resolve('target/interop/node_modules/eventsource/dist/index.js');
const { EventSource } = await import(pathToFileURL(entry).href);
const server = new URL(process.argv[2]);
const TRADES = 100;
const CUTS = 3;

const fail = (why) => {
  console.error(why);
  process.exit(1);
};
setTimeout(() => fail('timeout after 30 s'), 30000).unref();

const sockets = new Set();
const proxy = net.createServer((near) => {
  const far = net.connect(Number(server.port), server.hostname);
  for (const [one, other] of [[near, far], [far, near]]) {
    one.pipe(other);
    one.on('error', () => other.destroy());
    one.on('close', () => other.destroy());
  }
  sockets.add(near);
  near.on('close', () => sockets.delete(near));
});
await new Promise((listening) => proxy.listen(0, '127.0.0.1', listening));

const url = `http://127.0.0.1:${proxy.address().port}/v1/sse?symbols=*&channels=trade`;
const source = new EventSource(url);
const last = new Map();
const resumed = [];
let trades = 0;
let due = TRADES;

source.onmessage = ({ data }) => {
  for (const message of [JSON.parse(data)].flat()) {
    if (message.type === 'error') fail(data);
    if (message.type === 'resumed') resumed.push(message.how);
    if (message.type !== 'trade') continue;
    const before = last.get(message.symbol);
    if (before !== undefined && message.sequence !== before + 1) fail(`${message.sequence} after ${before}`);
    last.set(message.symbol, message.sequence);
    trades += 1;
  }
  if (trades < due) return;
  if (resumed.length === CUTS) {
    console.log(JSON.stringify({ trades, resumed }));
    process.exit(0);
  }
  due = trades + TRADES;
  sockets.forEach((socket) => socket.destroy());
};
