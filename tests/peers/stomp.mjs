// The generator for rooms.mjs: STOMP 1.2 over WebSocket, alike to every server, and the two processes made of it. One
// has connections that listen, the other connections that send. Each takes commands as lines of JSON on standard input
// and answers each with one line.
//
//   open {url, acks, people: [{connect, subscribe: [{destination, headers}]}]}   -> {opened, seconds}
//   reopen                           those that the server closed, anew    -> {opened}
//   begin {step, count, listeners}   so many messages will come to each    -> {}
//   count                                                                  -> {received, closed}
//   report                           counts, waits and what was doubled    -> see `report`
//   pace {step, rate, seconds, to}   at a fixed rate, whatever comes back  -> {sent, unanswered, refused, cpu}
//   flood {step, seconds, window, to}  `window` unanswered ones at a time  -> the same, with waits
//
// A message carries `~step.n.at~` in its text: its number and the moment, in µs, at which it was to be sent. All
// processes of one machine share the clock.

import { createInterface } from "node:readline";
import WebSocket from "ws";

const OPENING = 50;
const BEAT_MS = 10_000;
const ANSWER_MS = 60_000;
const TILDE = "~".charCodeAt(0);
const DOT = ".".charCodeAt(0);
const FILLER = "A sentence or two, as people write them to each other when they agree on where to have lunch today. ";

export const now = () => performance.timeOrigin + performance.now();
export const sleep = (ms) => new Promise((wake) => setTimeout(wake, ms));

const frame = (command, headers, body = "") => {
  const lines = Object.entries(headers).map(([name, value]) => `${name}:${value}\n`);
  return `${command}\n${lines.join("")}\n${body}\0`;
};

// Waits in ms, in steps of one per cent.
class Waits {
  constructor() {
    this.counts = new Uint32Array(2400);
    this.all = 0;
  }

  add(ms) {
    this.counts[Math.min(2399, Math.max(0, Math.round(Math.log(Math.max(ms, 0.001) * 1000) * 100)))]++;
    this.all++;
  }

  at(quantile) {
    let left = Math.ceil(this.all * quantile);
    const step = this.counts.findIndex((count) => (left -= count) <= 0);
    return this.all ? Math.exp(step / 100) / 1000 : null;
  }

  summary() {
    return { p50: this.at(0.5), p99: this.at(0.99), worst: this.at(1) };
  }
}

// One connection. Bodies hold no NUL, so a frame ends at the first one.
export class Stomp {
  constructor(url, onMessage = () => {}) {
    this.onMessage = onMessage;
    this.receipts = new Map();
    this.next = 0;
    this.pending = null;
    this.closed = null;
    this.beats = 0;
    this.socket = new WebSocket(url, ["v12.stomp"], { perMessageDeflate: false, skipUTF8Validation: true });
    this.socket.on("message", (data) => this.take(data));
    this.socket.on("close", (code, reason) => this.end(`closed with ${code} ${reason}`));
    this.socket.on("error", (error) => this.end(error.message));
  }

  // Opens a connection and signs in.
  static async open(url, headers, onMessage) {
    const stomp = new Stomp(url, onMessage);
    const opened = stomp.answered("opened");
    stomp.socket.once("open", () => stomp.settle("opened"));
    await opened;
    const connected = stomp.answered("connected");
    const given = { "accept-version": "1.2", host: "/", "heart-beat": `${BEAT_MS},${BEAT_MS}`, ...headers };
    stomp.socket.send(frame("CONNECT", given));
    stomp.connected = await connected;
    return stomp;
  }

  answered(key) {
    return new Promise((done, failed) => {
      if (this.closed) failed(new Error(this.closed));
      else this.receipts.set(key, { done, failed });
    });
  }

  settle(key, value) {
    const waiting = this.receipts.get(key);
    this.receipts.delete(key);
    waiting?.done(value);
  }

  refuse(key, reason) {
    const waiting = this.receipts.get(key);
    this.receipts.delete(key);
    waiting?.failed(new Error(reason));
  }

  end(why) {
    this.closed ??= why;
    for (const { failed } of this.receipts.values()) failed(new Error(this.closed));
    this.receipts.clear();
  }

  take(data) {
    const all = this.pending ? Buffer.concat([this.pending, data]) : data;
    this.pending = null;
    for (let at = 0; at < all.length; ) {
      if (all[at] === 10 || all[at] === 13) {
        this.beats++;
        at++;
        continue;
      }
      const end = all.indexOf(0, at);
      if (end < 0) {
        this.pending = Buffer.from(all.subarray(at));
        return;
      }
      // MESSAGE, by far the most, is not made into text.
      if (all[at] === 77) this.onMessage(all, at, end);
      else this.answer(all.toString("utf8", at, end));
      at = end + 1;
      // The line end that may follow a frame is no heart-beat.
      while (at < all.length && (all[at] === 10 || all[at] === 13)) at++;
    }
  }

  answer(text) {
    const [command, ...lines] = text.slice(0, text.indexOf("\n\n")).split(/\r?\n/);
    const parted = (line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1)];
    const headers = Object.fromEntries(lines.map(parted));
    if (command === "RECEIPT") this.settle(headers["receipt-id"]);
    else if (command === "CONNECTED") this.settle("connected", headers);
    else this.end(`${command}: ${headers.message} ${text.slice(text.indexOf("\n\n") + 2)}`);
  }

  // Sends a frame; the promise is kept when its RECEIPT comes.
  ask(command, headers, body) {
    const receipt = `r${this.next++}`;
    const answered = this.answered(receipt);
    this.socket.send(frame(command, { ...headers, receipt }, body));
    return answered;
  }

  subscribe(destination, headers) {
    return this.ask("SUBSCRIBE", { id: `s${this.next}`, destination, ack: "auto", ...headers });
  }

  send(destination, headers, body) {
    return this.ask("SEND", { destination, "content-type": "application/json", ...headers }, body);
  }

  // Acknowledges the MESSAGE from `at`.
  ack(data, at) {
    const from = data.indexOf("\nack:", at) + 5;
    this.socket.send(frame("ACK", { id: data.latin1Slice(from, data.indexOf("\n", from)) }));
  }

  beat() {
    if (!this.closed) this.socket.send("\n");
  }
}

// The connections of a process, which it keeps alive.
class Connections {
  constructor() {
    this.people = [];
    this.open = [];
    this.url = null;
    let turn = 0;
    setInterval(() => {
      for (let n = turn; n < this.open.length; n += 100) this.open[n]?.beat();
      turn = (turn + 1) % 100;
    }, BEAT_MS / 2 / 100);
  }

  async start({ url, people, acks }, onMessage) {
    [this.url, this.people, this.acks, this.onMessage] = [url, people, acks, onMessage];
    this.open = Array(people.length).fill(null);
    const began = now();
    await this.reopen();
    return { opened: people.length, seconds: (now() - began) / 1000 };
  }

  // Opens those that are not open.
  async reopen() {
    const wanted = [...this.people.keys()].filter((n) => this.open[n]?.closed !== null);
    let next = 0;
    const opener = async () => {
      while (next < wanted.length) {
        const n = wanted[next++];
        const { connect, subscribe } = this.people[n];
        this.open[n] = await Stomp.open(this.url, connect, (data, at, end) => {
          if (this.acks) this.open[n].ack(data, at);
          this.onMessage(n, data, at, end);
        });
        for (const { destination, headers } of subscribe) await this.open[n].subscribe(destination, headers);
      }
    };
    await Promise.all(Array.from({ length: OPENING }, opener));
    return { opened: wanted.length };
  }

  closed() {
    return this.open.filter((stomp) => stomp.closed).map((stomp) => stomp.closed);
  }
}

// Microseconds of CPU of this process between two calls.
function meter() {
  let before = process.cpuUsage();
  return () => {
    const { user, system } = process.cpuUsage(before);
    before = process.cpuUsage();
    return user + system;
  };
}

const digits = (data, from, to) => {
  let value = 0;
  for (let at = from; at < to; at++) value = value * 10 + data[at] - 48;
  return value;
};

function listener() {
  const connections = new Connections();
  const cpu = meter();
  let [step, count, seen, holders, waits] = [-1, 0, null, null, null];
  let [received, doubled, other, last] = [0, 0, 0, 0];
  const heard = (who, data, at, end) => {
    const from = data.indexOf(TILDE, at) + 1;
    const to = from ? data.indexOf(TILDE, from) : -1;
    const dot = data.indexOf(DOT, from);
    const second = data.indexOf(DOT, dot + 1);
    const n = to > 0 && to < end && second < to ? digits(data, dot + 1, second) : -1;
    if (n < 0 || n >= count || digits(data, from, dot) !== step) {
      other++;
      return;
    }
    const cell = who * count + n;
    if (seen[cell]++) {
      doubled++;
      return;
    }
    last = now();
    waits.add(last - digits(data, second + 1, to) / 1000);
    holders[n]++;
    received++;
  };
  const commands = {
    open: (given) => connections.start(given, heard),
    reopen: () => connections.reopen(),
    begin: (given) => {
      [step, count] = [given.step, given.count];
      [seen, holders, waits] = [new Uint8Array(count * given.listeners), new Uint16Array(count), new Waits()];
      [received, doubled, other, last] = [0, 0, 0, 0];
      cpu();
      return {};
    },
    count: () => ({ received, closed: connections.closed().length }),
    report: () => ({
      received, doubled, other, last, cpu: cpu(), waits: waits.summary(), closed: connections.closed(),
      // How many connections have message n.
      holders: [...holders],
    }),
  };
  return commands;
}

function sender() {
  const connections = new Connections();
  const cpu = meter();
  const body = (step, n, at, room) => {
    const text = `~${step}.${n}.${Math.round(at * 1000)}~ ${FILLER}`;
    return JSON.stringify({ tempId: `${step}-${n}`, roomId: room, content: { text, type: "TEXT" } });
  };
  // notihub refuses a frame by a message that names its receipt, and the connection goes on.
  const refusal = (who, data, at, end) => {
    const text = data.toString("utf8", at, end);
    const { receiptId, reason } = JSON.parse(text.slice(text.indexOf("\n\n") + 2));
    connections.open[who].refuse(receiptId, reason);
  };
  // `to` has the rooms of each connection: [room, destination, headers].
  const run = async ({ step, to }, offer) => {
    const accepted = [];
    const refused = [];
    const waits = new Waits();
    let [n, answered] = [0, 0];
    const post = async (who, at) => {
      const mine = n++;
      const rooms = to[who];
      const [room, destination, headers] = rooms[mine % rooms.length];
      const began = now();
      try {
        await connections.open[who].send(destination, headers, body(step, mine, at ?? began, room));
        accepted.push(mine);
        waits.add(now() - began);
      } catch (error) {
        refused.push(error.message);
      }
      answered++;
    };
    cpu();
    const began = now();
    await offer(began, post, () => n);
    const ended = now();
    while (answered < n && now() < ended + ANSWER_MS) await sleep(10);
    return {
      sent: n, accepted, unanswered: n - answered, refused: refused.length, why: refused[0], began,
      seconds: (ended - began) / 1000, waits: waits.summary(), cpu: cpu(),
    };
  };
  return {
    open: (given) => connections.start(given, refusal),
    reopen: () => connections.reopen(),
    pace: (given) =>
      run(given, async (began, post, sent) => {
        const all = Math.round(given.rate * given.seconds);
        const due = (n) => began + (n * 1000) / given.rate;
        for (let who = 0; sent() < all; who++) {
          const n = sent();
          while (due(n) > now()) await sleep(Math.max(1, Math.floor(due(n) - now())));
          post(who % connections.open.length, due(n));
        }
      }),
    flood: (given) =>
      run(given, async (began, post) => {
        const one = async (who) => {
          while (now() < began + given.seconds * 1000 && !connections.open[who].closed) await post(who);
        };
        const each = connections.open.flatMap((_, who) => Array.from({ length: given.window }, () => one(who)));
        await Promise.race([Promise.all(each), sleep(given.seconds * 1000 + ANSWER_MS)]);
      }),
  };
}

const [role] = process.argv.slice(2);
if (import.meta.filename === process.argv[1]) {
  const commands = role === "listen" ? listener() : sender();
  for await (const line of createInterface({ input: process.stdin })) {
    const { what, ...given } = JSON.parse(line);
    let answer;
    try {
      answer = await commands[what](given);
    } catch (error) {
      answer = { error: error.message };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
  process.exit(0);
}
