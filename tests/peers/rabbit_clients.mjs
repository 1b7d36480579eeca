// Stock STOMP clients make the same calls at RabbitMQ's web-stomp and at notihub, and so does the script of our tests
// (tests/fixtures/stomp_client.mjs), unchanged. A call that passes at RabbitMQ shows that the client and the script are
// used as a broker of STOMP expects; a call that fails only at notihub is notihub's fault.

import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { table } from "./figures.mjs";
import { findRabbit, start, startNotihub, startRabbit, stopAll, Wrong } from "./servers.mjs";
import { sleep } from "./stomp.mjs";

const HELP = `Runs stock STOMP clients against RabbitMQ's web-stomp and notihub, and says which calls pass.

  node rabbit_clients.mjs [flags]

  --systems LIST       of notihub,rabbitmq (default: both)
  --clients LIST       of stompjs,sockjs,webstomp,stompjs2 (default: all)
  --output text|json   a table, or a line of JSON for each call (default: text)
  --notihub FILE       the program (default: $NOTIHUB, or target/release/notihub)
  --rabbitmq FOLDER    RabbitMQ's folder sbin (default: that of the package)

It exits 1 if a call failed. What a server does not offer (SockJS at RabbitMQ) is no failure.`;

const CLIENTS = {
  stompjs: "@stomp/stompjs",
  sockjs: "@stomp/stompjs over sockjs-client",
  webstomp: "webstomp-client",
  stompjs2: "stompjs 2.3.3",
};
const CALLS = [
  "connect", "subscribe, receipt", "send, receipt", "message", "beats of the server", "beats of the client",
  "disconnect", "disconnect, receipt", "script of the tests",
];
// Calls that a server is known not to answer. RabbitMQ 3.8 and later acknowledge no DISCONNECT
// (https://github.com/stomp-js/stompjs/pull/280).
const CANNOT = { rabbitmq: { "disconnect, receipt": "the server closes without a RECEIPT" }, notihub: {} };
const BEAT_MS = 1000;
// notihub beats every ten seconds, however often a client asks for it.
const BEATS_WITHIN_MS = 25_000;
const ANSWER_MS = 10_000;

const require = createRequire(import.meta.url);
const HERE = import.meta.dirname;

// ---- a client, in a process of its own

// Counts heart-beats on a connection, in both directions, and keeps the RECEIPTs that came.
function tapped(socket) {
  const seen = { received: 0, sent: 0, receipts: new Set(), closed: false };
  socket.addEventListener("close", () => (seen.closed = true));
  const send = socket.send.bind(socket);
  socket.send = (data, ...rest) => {
    if (data === "\n") seen.sent++;
    send(data, ...rest);
  };
  socket.addEventListener("message", ({ data }) => {
    if (data === "\n") seen.received++;
    const receipt = /^RECEIPT\n(?:.*\n)*?receipt-id:(.*)\n/.exec(String(data).trimStart());
    if (receipt) seen.receipts.add(receipt[1]);
  });
  return seen;
}

// RabbitMQ passes the body on as it was sent; notihub's event has the text alone.
function textOf(message) {
  const { content } = message.data ?? message;
  return content?.text ?? content;
}

async function within(what, promise, ms = ANSWER_MS) {
  const late = sleep(ms).then(() => Promise.reject(new Error(`${what} did not come within ${ms / 1000} s`)));
  return Promise.race([promise, late]);
}

async function happens(what, holds, ms) {
  const poll = async () => {
    while (!holds()) await sleep(20);
  };
  await within(what, poll(), ms);
}

// Each library's way of the same calls: {connect, subscribe, send, disconnect}, and a tap on its connection (`tap`).
// `receipt` is called with the id of each RECEIPT that the library hands on.
function modern(kind, { url, base, connect, ticket }, receipt) {
  const { Client } = require("@stomp/stompjs");
  const WebSocket = require("ws");
  const SockJS = require("sockjs-client");
  let tap;
  const client = new Client({
    webSocketFactory: () => {
      const socket = kind === "stompjs"
        ? new WebSocket(url, ["v12.stomp", "v11.stomp", "v10.stomp"])
        : new SockJS(`${base}/ws/chat${ticket}`, null, { transports: ["websocket"] });
      tap = tapped(socket);
      return socket;
    },
    connectHeaders: kind === "stompjs" ? connect : {},
    heartbeatIncoming: BEAT_MS,
    heartbeatOutgoing: BEAT_MS,
    reconnectDelay: 0,
  });
  client.onUnhandledReceipt = (frame) => receipt(frame.headers["receipt-id"]);
  return {
    tap: () => tap,
    connect: () =>
      new Promise((done, failed) => {
        client.onConnect = done;
        client.onStompError = (frame) => failed(new Error(frame.headers.message));
        client.onWebSocketClose = ({ code, reason }) => failed(new Error(`closed with ${code} ${reason}`));
        client.activate();
      }),
    subscribe: (destination, heard, headers) => client.subscribe(destination, heard, headers),
    send: (destination, body, headers) => client.publish({ destination, body, headers }),
    // DISCONNECT gets a receipt of the library's own.
    disconnect: () => client.deactivate(),
  };
}

function former(kind, { url, connect }, receipt) {
  const WebSocket = require("ws");
  const socket = new WebSocket(url, ["v11.stomp", "v10.stomp"]);
  const tap = tapped(socket);
  const webstomp = kind === "webstomp";
  const client = webstomp ? require("webstomp-client").over(socket, { debug: false }) : require("stompjs").over(socket);
  client.debug = () => {};
  Object.assign(client.heartbeat, { outgoing: BEAT_MS, incoming: BEAT_MS });
  client.onreceipt = (frame) => receipt(frame.headers["receipt-id"]);
  return {
    tap: () => tap,
    connect: () =>
      new Promise((done, failed) => {
        client.connect(connect, done, (why) => failed(new Error(why.reason ?? String(why))));
      }),
    subscribe: (destination, heard, headers) => client.subscribe(destination, heard, headers),
    send: (destination, body, headers) =>
      webstomp ? client.send(destination, body, headers) : client.send(destination, headers, body),
    // The library closes its side at once; a RECEIPT comes before the server closes the other.
    disconnect: () => client.disconnect(() => {}, { receipt: "bye" }),
  };
}

async function client(kind, at) {
  const receipts = new Set();
  const make = kind === "stompjs" || kind === "sockjs" ? modern : former;
  const library = make(kind, at, (id) => receipts.add(id));
  const messages = [];
  const text = `"Grüße" von ${kind}: a line\nand \\ another, 안녕`;
  const body = JSON.stringify({ roomId: at.room, tempId: kind, content: { text, type: "TEXT" } });
  const has = (receipt) => () => receipts.has(receipt);
  const steps = {
    connect: () => within("CONNECTED", library.connect()),
    "subscribe, receipt": async () => {
      library.subscribe(at.topic, (frame) => messages.push(JSON.parse(frame.body)), { receipt: "subscribed" });
      await happens("the RECEIPT", has("subscribed"), ANSWER_MS);
    },
    "send, receipt": async () => {
      library.send(at.send, body, { receipt: "sent" });
      await happens("the RECEIPT", has("sent"), ANSWER_MS);
    },
    message: async () => {
      await happens("the message", () => messages.some((message) => textOf(message) === text), ANSWER_MS);
      if (messages.length > 1) throw new Error(`${messages.length} messages came`);
    },
    "beats of the server": () => happens("two", () => library.tap().received >= 2, BEATS_WITHIN_MS),
    "beats of the client": () => happens("two", () => library.tap().sent >= 2, BEATS_WITHIN_MS),
    disconnect: async () => {
      library.disconnect();
      await happens("the end of the connection", () => library.tap().closed, ANSWER_MS);
    },
    "disconnect, receipt": async () => {
      const others = [...library.tap().receipts].filter((id) => id !== "subscribed" && id !== "sent");
      if (others.length !== 1) throw new Error(`${others.length} RECEIPTs came`);
    },
  };
  for (const [call, step] of Object.entries(steps)) {
    let failed = null;
    try {
      await step();
    } catch (error) {
      failed = error.message || String(error);
    }
    console.log(JSON.stringify({ call, failed }));
    if (failed && call === "connect") break;
  }
  process.exit(0);
}

// ---- the script of the tests

// The script takes its libraries from a folder. At RabbitMQ this is one whose `ws` replaces the destinations that only
// notihub has; the libraries and the script are unchanged.
function libraries(folder, rabbit) {
  const modules = join(folder, "node_modules");
  mkdirSync(join(modules, "@stomp"), { recursive: true });
  for (const name of ["@stomp/stompjs", "sockjs-client", "webstomp-client", "stompjs", ...(rabbit ? [] : ["ws"])]) {
    symlinkSync(join(HERE, "node_modules", name), join(modules, name));
  }
  if (!rabbit) return folder;
  mkdirSync(join(modules, "ws"));
  writeFileSync(join(modules, "ws/index.js"), `
    const WebSocket = require(${JSON.stringify(require.resolve("ws"))});
    const destination = (text) => text
      .replace(/^(\\/topic\\/rooms\\/|\\/app\\/room\\/)([^/]*).*/, "/exchange/chat.exchange/chat.channel.$2.message")
      .replace(/^\\/app\\/chat$/, "/exchange/chat.exchange/chat.channel.r0.message")
      .replace(/^\\/topic\\/message\\/status\\/(.*)/, "/topic/status.$1")
      .replace(/^\\/user\\/queue\\/errors$/, "/topic/errors");
    module.exports = class extends WebSocket {
      constructor(url, ...rest) {
        super(url.replace(/\\/ws\\/chat$/, "/ws"), ...rest);
      }
      send(data, ...rest) {
        const changed = String(data).replace(/^destination:(.*)$/m, (_, text) => "destination:" + destination(text));
        super.send(changed, ...rest);
      }
    };`);
  return folder;
}

async function script(kind, at, rabbit) {
  const folder = libraries(mkdtempSync("/var/tmp/peers-script-"), rabbit);
  const file = resolve(HERE, "../fixtures/stomp_client.mjs");
  const child = start(process.execPath, [file, folder, kind, at.base, at.token, at.room], {
    stdio: ["pipe", "pipe", "ignore"],
  });
  const lines = [];
  createInterface({ input: child.stdout }).on("line", (line) => lines.push(JSON.parse(line)));
  const found = (what) => lines.filter((line) => line.what === what);
  const text = `script ${kind}`;
  const came = () => found("event").filter(({ body }) => textOf(body) === text).length;
  try {
    await happens("ready", () => found("ready").length, ANSWER_MS);
    // Two of the clients say that they are ready before their subscriptions are confirmed.
    await sleep(300);
    child.stdin.write(JSON.stringify({ tempId: text, text }) + "\n");
    await happens("the message", () => came(), ANSWER_MS);
    await sleep(300);
    if (came() > 1) throw new Error(`${came()} messages came`);
    const wrong = [...found("error"), ...found("refused")];
    if (wrong.length) throw new Error(JSON.stringify(wrong[0]));
    return null;
  } catch (error) {
    return error.message;
  } finally {
    child.kill();
    await child.gone;
    rmSync(folder, { recursive: true, force: true });
  }
}

// ---- all together

async function served(base) {
  try {
    return (await fetch(`${base}/ws/chat/info`)).ok || (await fetch(`${base}/ws/info`)).ok;
  } catch {
    return false;
  }
}

// The calls of one client at one server: [{call, failed, cannot}].
async function calls(kind, at, rabbit) {
  if (kind === "sockjs" && !(await served(at.base))) {
    return CALLS.map((call) => ({ call, cannot: "the server has no SockJS" }));
  }
  const child = start(process.execPath, [import.meta.filename, "client", kind, JSON.stringify(at)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const results = [];
  for await (const line of createInterface({ input: child.stdout })) results.push(JSON.parse(line));
  results.push({ call: "script of the tests", failed: await script(kind, at, rabbit) });
  const cannot = CANNOT[rabbit ? "rabbitmq" : "notihub"];
  for (const result of results.filter(({ call, failed }) => failed && cannot[call])) {
    Object.assign(result, { failed: null, cannot: cannot[result.call] });
  }
  const missing = CALLS.filter((call) => !results.some((result) => result.call === call));
  return [...results, ...missing.map((call) => ({ call, failed: "not reached" }))];
}

async function system(name, given) {
  const rabbit = name === "rabbitmq";
  const server = rabbit
    ? await startRabbit({ scripts: given.rabbitmq })
    : await startNotihub({ program: given.notihub });
  try {
    const people = await server.people(given.clients.length);
    // A room for each client, so that it receives its own message alone. At RabbitMQ a room is no more than a name.
    const rooms = await server.rooms(people.map((_, n) => [n, (n + 1) % people.length]));
    return await Promise.all(given.clients.map(async (kind, n) => {
      const { id: room, topic, send } = rooms[n];
      const { connect, token = "none" } = people[n];
      const at = { url: server.url, base: server.base, connect, token, ticket: `?token=${token}`, room, topic, send };
      return { kind, results: await calls(kind, at, rabbit) };
    }));
  } finally {
    await server.stop();
  }
}

async function main() {
  const string = (fallback) => ({ type: "string", default: fallback });
  const { values } = parseArgs({
    options: {
      systems: string("notihub,rabbitmq"),
      clients: string(Object.keys(CLIENTS).join(",")),
      output: string("text"),
      notihub: string(process.env.NOTIHUB ?? join(resolve(HERE, "../.."), "target/release/notihub")),
      rabbitmq: string(findRabbit() ?? ""),
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const list = (name, allowed) => {
    const chosen = values[name].split(",").filter(Boolean);
    const unknown = chosen.filter((item) => !allowed.includes(item));
    if (unknown.length) throw new Wrong(`--${name}: ${unknown.join(", ")} is not one of ${allowed.join(", ")}`);
    return chosen;
  };
  const systems = list("systems", ["notihub", "rabbitmq"]);
  const given = {
    clients: list("clients", Object.keys(CLIENTS)), notihub: resolve(values.notihub), rabbitmq: values.rabbitmq || null,
  };
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => stopAll().finally(() => process.exit(130)));
  let failed = false;
  for (const name of systems) {
    const found = await system(name, given);
    const word = ({ failed: why, cannot }) => (cannot ? "cannot" : why ? "FAIL" : "pass");
    const of = (results, call) => results.find((result) => result.call === call);
    if (values.output === "json") {
      for (const { kind, results } of found) {
        for (const result of results) {
          const why = result.failed ?? result.cannot ?? null;
          console.log(JSON.stringify({ system: name, client: kind, call: result.call, result: word(result), why }));
        }
      }
    } else {
      table(name, [
        ["", ...found.map(({ kind }) => kind)],
        ...CALLS.map((call) => [call, ...found.map(({ results }) => word(of(results, call)))]),
      ]);
      const whys = found.flatMap(({ kind, results }) =>
        results.filter((result) => result.failed).map((result) => `  ${kind}, ${result.call}: ${result.failed}`));
      const cannot = new Set(found.flatMap(({ kind, results }) =>
        results.filter((result) => result.cannot).map((result) => `  ${kind}: ${result.cannot}`)));
      for (const why of [...whys, ...cannot]) console.log(why);
    }
    failed ||= found.some(({ results }) => results.some((result) => result.failed));
  }
  return failed ? 1 : 0;
}

const [role, kind, at] = process.argv.slice(2);
if (role === "client") await client(kind, JSON.parse(at));
else {
  main().then((code) => process.exit(code), (error) => {
    console.error(`peers: ${error instanceof Wrong ? error.message : error.stack}`);
    process.exit(2);
  });
}
