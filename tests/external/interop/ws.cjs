// Node, npm's ws: node ws.cjs URL off|on. Prints its results as one line of JSON, or fails.
'use strict';
const path = require('path');
const WebSocket = require(path.resolve('target/interop/node_modules/ws'));

const [, , url, deflate] = process.argv;
const perMessageDeflate = deflate === 'on' ? { threshold: 0 } : false;
const RECORDS = 300;

const fail = (why) => {
  console.error(why);
  process.exit(1);
};
setTimeout(() => fail('timeout after 30 s'), 30000).unref();

function stream() {
  return new Promise((resolve) => {
    const socket = new WebSocket(`${url}/v1/stream`, 'tickcast.v1', { perMessageDeflate });
    const last = new Map();
    let records = 0;
    socket.on('error', fail);
    socket.on('open', () => {
      const symbols = ['*', ...Array(200).fill('NO-SUCH')];
      socket.send(JSON.stringify({ op: 'subscribe', id: 1, channels: ['trade'], symbols }));
    });
    socket.on('message', (data, isBinary) => {
      if (!isBinary) {
        const reply = JSON.parse(data);
        if (reply.type === 'error') fail(data.toString());
        return;
      }
      for (let at = 24; at < data.length; at += data.readUInt16LE(at) * 8) {
        if (data[at + 2] !== 2) continue;
        const [instrument, sequence] = [data.readUInt32LE(at + 4), data.readBigUInt64LE(at + 8)];
        const before = last.get(instrument);
        if (before !== undefined && sequence !== before + 1n) fail(`${sequence} after ${before}`);
        last.set(instrument, sequence);
        records += 1;
      }
      if (records >= RECORDS) socket.close(1000);
    });
    socket.on('close', (code) => resolve({ extensions: socket.extensions, records, code }));
  });
}

function echo() {
  return new Promise((resolve) => {
    const socket = new WebSocket(`${url}/v1/echo`, { perMessageDeflate });
    const [text, bytes] = [Array.from({ length: 12000 }, (_, at) => at), Buffer.alloc(200000).map((_, at) => ((at * at) >> 7) & 255)];
    const messages = ['', 'grüße €', text.join(' '), Buffer.alloc(0), Buffer.from([0, 255, 128]), bytes];
    let echoed = 0;
    socket.on('error', fail);
    socket.on('open', () => messages.forEach((message) => socket.send(message)));
    socket.on('message', (data, isBinary) => {
      const expected = messages[echoed];
      if (isBinary !== (typeof expected !== 'string') || !data.equals(Buffer.from(expected))) fail(`echo ${echoed} differs`);
      echoed += 1;
      if (echoed === messages.length) socket.close(1000, 'bye');
    });
    socket.on('close', (code) => resolve({ echo: socket.extensions, echoes: echoed, echo_code: code }));
  });
}

stream()
  .then(async (result) => console.log(JSON.stringify({ ...result, ...(await echo()) })))
  .catch(fail);
