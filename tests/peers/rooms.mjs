// Rooms of notihub beside RabbitMQ's web-stomp, one after the other on this machine: one generator (stomp.mjs) speaks
// STOMP over WebSocket to both. Every message is counted where it is sent and where it comes.

import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { known, median, ratios, spread, table, times, whole } from "./figures.mjs";
import { findRabbit, start, startNotihub, startRabbit, stopAll, Wrong } from "./servers.mjs";
import { now, sleep } from "./stomp.mjs";

const OURS = "notihub";
const PLAIN = "RabbitMQ";
const DURABLE = "RabbitMQ, durable";
const ACKED = "RabbitMQ, acks";
const P99_MS = 250;
const SENDERS = 4;
const COARSE = 1.4;
const FINE = 1.1;
const DRAIN_MS = 60_000;
const QUIET_MS = 5_000;

const SYSTEMS = {
  "fan-out": [PLAIN, DURABLE, ACKED, OURS],
  send: [DURABLE, OURS],
  connections: [PLAIN, OURS],
};

const HELP = `Measures rooms of notihub beside RabbitMQ's web-stomp, one after the other, by one generator.

  node rooms.mjs [flags]

  --only LIST          of ${Object.keys(SYSTEMS).join(",")} (default: all)
  --systems LIST       of ${OURS},rabbitmq (default: both)
  --rounds N           so often the systems take turns in each measurement, every second round the other way round; the
                       table has medians, and the ratios of the pairs with their spread (default: 1)
  --seconds S          of each offered rate, and of sending (default: 8)
  --listeners N        of the one room (default: 500)
  --from N             messages a second of the first offered rate (default: 10)
  --connections N      open and idle, each with 2 subscriptions (default: 4000)
  --idle-seconds S     for which they are (default: 30)
  --window N           unanswered messages of each of the 64 connections that send (default: 1)
  --output text|json   a table, or a line of JSON for each figure as soon as it is known (default: text)
  --notihub FILE       the program to measure (default: $NOTIHUB, or target/release/notihub)
  --rabbitmq FOLDER    RabbitMQ's folder sbin (default: that of the package)

It exits 1 if a confirmed message was lost, if one came twice, or if something could not be measured.`;

const say = (text) => console.error(`peers: ${text}`);

function options() {
  const string = (fallback) => ({ type: "string", default: fallback });
  const { values } = parseArgs({
    options: {
      only: string(Object.keys(SYSTEMS).join(",")),
      systems: string(`${OURS},rabbitmq`),
      rounds: string("1"),
      seconds: string("8"),
      listeners: string("500"),
      from: string("10"),
      connections: string("4000"),
      "idle-seconds": string("30"),
      window: string("1"),
      output: string("text"),
      notihub: string(process.env.NOTIHUB ?? join(resolve(import.meta.dirname, "../.."), "target/release/notihub")),
      rabbitmq: string(findRabbit() ?? ""),
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) {
    console.log(HELP);
    process.exit(0);
  }
  const list = (name, allowed) => {
    const chosen = values[name].split(",").filter(Boolean);
    const unknown = chosen.filter((item) => !allowed.includes(item));
    if (unknown.length) throw new Wrong(`--${name}: ${unknown.join(", ")} is not one of ${allowed.join(", ")}`);
    return allowed.filter((item) => chosen.includes(item));
  };
  const number = (name) => {
    const value = Number(values[name]);
    if (Number.isInteger(value) && value > 0) return value;
    throw new Wrong(`--${name}: ${values[name]} is not a whole number above 0`);
  };
  if (!["text", "json"].includes(values.output)) throw new Wrong(`--output: text or json, not ${values.output}`);
  return {
    only: list("only", Object.keys(SYSTEMS)),
    systems: list("systems", [OURS, "rabbitmq"]),
    rounds: number("rounds"),
    seconds: number("seconds"),
    listeners: number("listeners"),
    from: number("from"),
    connections: number("connections"),
    idleSeconds: number("idle-seconds"),
    window: number("window"),
    json: values.output === "json",
    notihub: resolve(values.notihub),
    rabbitmq: values.rabbitmq || null,
  };
}

// ---- processes of the generator

class Child {
  constructor(role) {
    this.child = start(process.execPath, [join(import.meta.dirname, "stomp.mjs"), role], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
  }

  async ask(what, given = {}) {
    this.child.stdin.write(JSON.stringify({ what, ...given }) + "\n");
    const { value, done } = await this.lines.next();
    if (done) throw new Error("a process of the generator ended");
    const answer = JSON.parse(value);
    if (answer.error) throw new Error(answer.error);
    return answer;
  }

  end() {
    this.child.stdin.end();
  }
}

// Starts a server and the children, and ends all of them whatever happens.
async function withServer(system, given, how, measure) {
  const server = system === OURS
    ? await startNotihub({ program: given.notihub })
    : await startRabbit({ scripts: given.rabbitmq, durable: system !== PLAIN, acks: system === ACKED, ...how });
  const [listener, sender] = [new Child("listen"), new Child("send")];
  try {
    say(`  ${await server.settings()}`);
    return await measure(server, listener, sender);
  } finally {
    listener.end();
    sender.end();
    await server.stop();
  }
}

const sum = ({ server, database }) => server + database;

// CPU of the server and of its database between the call and the call of the result, in s.
function metered(server) {
  const before = server.cpu();
  return () => {
    const after = server.cpu();
    return { server: after.server - before.server, database: after.database - before.database };
  };
}

// ---- fan-out

// Offers a rate for some seconds, and waits until all that was sent has come, or nothing comes any more.
async function offer(server, listener, sender, { step, rate, seconds, listeners, to }) {
  const count = Math.round(rate * seconds);
  await listener.ask("begin", { step, count, listeners });
  const used = metered(server);
  const sent = await sender.ask("pace", { step, rate, seconds, to });
  const until = now() + DRAIN_MS;
  let [received, since] = [0, now()];
  while (received < sent.sent * listeners && now() < until && now() < since + QUIET_MS) {
    await sleep(20);
    const seen = (await listener.ask("count")).received;
    if (seen > received) [received, since] = [seen, now()];
  }
  const cpu = used();
  const report = await listener.ask("report");
  const missing = sent.accepted.reduce((all, n) => all + listeners - report.holders[n], 0);
  const unconfirmed = new Set(sent.accepted);
  const extra = report.holders.reduce((all, holders, n) => all + (unconfirmed.has(n) ? 0 : holders), 0);
  const took = Math.max(seconds, (report.last - sent.began) / 1000);
  return {
    offered: rate * listeners,
    deliveries: report.received / took,
    ...report.waits,
    cpu: (cpu.server / report.received) * 1e6,
    cpuAll: (sum(cpu) / report.received) * 1e6,
    generator: (report.cpu / 1e6 / took) * 100,
    lost: missing,
    doubled: report.doubled,
    unanswered: sent.unanswered + sent.refused,
    extra,
    why: sent.why ?? report.closed[0],
    closed: report.closed.length,
    counted: `${sent.sent} sent, ${sent.accepted.length} confirmed, ${report.received} of ` +
      `${sent.accepted.length * listeners} deliveries came`,
  };
}

function told(step) {
  const ms = (value) => (known(value) ? value.toFixed(1) : "-");
  const wrong = [
    step.lost && `${step.lost} LOST`,
    step.doubled && `${step.doubled} DOUBLED`,
    step.unanswered && `${step.unanswered} not confirmed`,
    step.extra && `${step.extra} came of those`,
    step.closed && `${step.closed} connections closed`,
    step.why,
  ].filter(Boolean);
  return `  offered ${whole(step.offered)}/s: ${whole(step.deliveries)}/s came, p50 ${ms(step.p50)} ms, p99 ` +
    `${ms(step.p99)} ms, CPU ${step.cpu.toFixed(1)} µs each (database too: ${step.cpuAll.toFixed(1)}), generator ` +
    `${step.generator.toFixed(0)} %; ${step.counted}${wrong.length ? `; ${wrong.join(", ")}` : ""}`;
}

async function fanOut(system, given) {
  return withServer(system, given, {}, async (server, listener, sender) => {
    const { listeners, seconds } = given;
    const people = await server.people(listeners + SENDERS);
    const [room] = await server.rooms([people.map((_, n) => n)]);
    await listener.ask("open", {
      url: server.url,
      acks: server.acks,
      people: people.slice(0, listeners).map(({ connect }, n) => ({
        connect, subscribe: [{ destination: room.topic, headers: server.listening(n) }],
      })),
    });
    await sender.ask("open", {
      url: server.url,
      people: people.slice(listeners).map(({ connect }) => ({ connect, subscribe: server.refusals })),
    });
    const to = Array(SENDERS).fill([[room.id, room.send, room.sendHeaders]]);
    let [step, best] = [0, null];
    const sums = { lost: 0, doubled: 0, unconfirmed: 0 };
    const offered = async (rate) => {
      const found = await offer(server, listener, sender, { step: step++, rate, seconds, listeners, to });
      say(told(found));
      sums.lost += found.lost;
      sums.doubled += found.doubled;
      sums.unconfirmed += found.unanswered;
      const { opened } = await listener.ask("reopen");
      if (opened) say(`  ${opened} connections opened anew`);
      const wrong = found.lost || found.doubled || found.closed || found.unanswered;
      const good = known(found.p99) && found.p99 <= P99_MS && !wrong;
      if (good && found.deliveries > (best?.deliveries ?? 0)) best = found;
      return good;
    };
    // Another program may have taken the machine's time: a rate is too high if it fails twice.
    const holds = async (rate) => (await offered(rate)) || (await offered(rate));
    // Warms the generator and Erlang, which compile their code while they run.
    await offer(server, listener, sender, { step: step++, rate: given.from, seconds: 3, listeners, to });
    let rate = given.from;
    while (await holds(rate)) rate *= COARSE;
    const most = rate;
    for (rate = (rate / COARSE) * FINE; rate < most * 0.99 && (await holds(rate)); ) rate *= FINE;
    return {
      fanOut: best?.deliveries, fanOut99: best?.p99, fanOutCpu: best?.cpu, fanOutCpuAll: best?.cpuAll,
      fanOutLost: sums.lost, fanOutDoubled: sums.doubled, fanOutUnconfirmed: sums.unconfirmed,
    };
  });
}

// ---- send

const SENDING = 64;
const ROOMS = 512;
const MEMBERS = 8;

async function send(system, given) {
  return withServer(system, given, { queues: ROOMS, durable: true }, async (server, listener, sender) => {
    const people = await server.people(SENDING);
    // Each room has eight members, all of whom write, and each member is in 64 rooms.
    const members = Array.from({ length: ROOMS }, (_, n) =>
      Array.from({ length: MEMBERS }, (_, m) => (n + m) % SENDING));
    const rooms = await server.rooms(members);
    await sender.ask("open", {
      url: server.url,
      people: people.map(({ connect }) => ({ connect, subscribe: server.refusals })),
    });
    const to = people.map((_, who) =>
      rooms.filter((_, n) => members[n].includes(who)).map((room) => [room.id, room.send, room.sendHeaders]));
    await sender.ask("flood", { step: 0, seconds: 3, window: given.window, to });
    const used = metered(server);
    const sent = await sender.ask("flood", { step: 1, seconds: given.seconds, window: given.window, to });
    const cpu = used();
    const accepted = sent.accepted.length;
    const kept = await stored(server, listener, rooms, sent);
    say(`  ${sent.sent} sent, ${accepted} confirmed, ${kept.found} of them stored; generator ` +
      `${(sent.cpu / 1e4 / sent.seconds).toFixed(0)} %${sent.why ? `; ${sent.why}` : ""}`);
    return {
      send: accepted / sent.seconds, send50: sent.waits.p50, send99: sent.waits.p99,
      sendCpu: (cpu.server / accepted) * 1e6, sendCpuAll: (sum(cpu) / accepted) * 1e6,
      sendLost: accepted - kept.found, sendDoubled: kept.doubled, sendUnconfirmed: sent.unanswered + sent.refused,
    };
  });
}

// Looks for the confirmed messages of step 1: in the database, or by consuming the queues.
async function stored(server, listener, rooms, sent) {
  if (server.stored) {
    const all = await server.stored(1);
    const kept = new Set(all);
    return { found: sent.accepted.filter((n) => kept.has(n)).length, doubled: all.length - kept.size };
  }
  await listener.ask("begin", { step: 1, count: sent.sent, listeners: 1 });
  const [{ connect }] = await server.people(1);
  const subscribe = rooms.map((room) => ({ destination: server.queueOf(room), headers: {} }));
  await listener.ask("open", { url: server.url, people: [{ connect, subscribe }] });
  let [received, since] = [0, now()];
  while (received < sent.sent && now() < since + QUIET_MS) {
    await sleep(50);
    const seen = (await listener.ask("count")).received;
    if (seen > received) [received, since] = [seen, now()];
  }
  const { holders, doubled } = await listener.ask("report");
  return { found: sent.accepted.filter((n) => holders[n]).length, doubled };
}

// ---- connections

const WARM = 100;
const IN_A_ROOM = 100;

async function idle(system, given) {
  return withServer(system, given, {}, async (server, listener, sender) => {
    const count = given.connections;
    const people = await server.people(count + WARM);
    const lists = [];
    for (let n = 0; n < people.length; n += IN_A_ROOM) {
      lists.push([...people.keys()].slice(n, n + IN_A_ROOM));
    }
    const rooms = await server.rooms(lists);
    const whom = (from, to) =>
      people.slice(from, to).map((user, n) => ({
        connect: user.connect,
        subscribe: [rooms[Math.floor((from + n) / IN_A_ROOM)].topic, server.personal(user)].map((destination) => ({
          destination, headers: {},
        })),
      }));
    // Memory that the first connections of all need once is not theirs.
    await sender.ask("open", { url: server.url, people: whom(0, WARM) });
    await sleep(3000);
    const before = server.kib();
    const { opened, seconds } = await listener.ask("open", { url: server.url, people: whom(WARM, WARM + count) });
    await sleep(3000);
    const open = server.kib();
    const used = metered(server);
    await sleep(given.idleSeconds * 1000);
    const cpu = used();
    const after = server.kib();
    const { closed } = await listener.ask("count");
    if (closed) say(`  ${closed} connections were closed`);
    return {
      opening: opened / seconds, kib: (Math.max(open, after) - before) / count,
      idleCpu: (cpu.server / given.idleSeconds) * 100, idleCpuAll: (sum(cpu) / given.idleSeconds) * 100,
      idleClosed: closed,
    };
  });
}

// ---- figures

const FIGURES = {
  fanOut: ["fan-out", `deliveries, p99 at most ${P99_MS} ms`, "/s"],
  fanOut99: ["fan-out", "p99 at that rate", "ms"],
  fanOutCpu: ["fan-out", "CPU of the server, each", "µs"],
  fanOutCpuAll: ["fan-out", "CPU with its database, each", "µs"],
  fanOutLost: ["fan-out", "deliveries lost", ""],
  fanOutDoubled: ["fan-out", "deliveries doubled", ""],
  fanOutUnconfirmed: ["fan-out", "messages not confirmed", ""],
  send: ["send", "messages, durable", "/s"],
  send50: ["send", "SEND -> RECEIPT, p50", "ms"],
  send99: ["send", "SEND -> RECEIPT, p99", "ms"],
  sendCpu: ["send", "CPU of the server, each", "µs"],
  sendCpuAll: ["send", "CPU with its database, each", "µs"],
  sendLost: ["send", "confirmed and not stored", ""],
  sendDoubled: ["send", "stored twice", ""],
  sendUnconfirmed: ["send", "messages not confirmed", ""],
  opening: ["connections", "opened", "/s"],
  kib: ["connections", "memory of the server, each", "KiB"],
  idleCpu: ["connections", "CPU of the server", "% of one"],
  idleCpuAll: ["connections", "CPU with its database", "% of one"],
  idleClosed: ["connections", "closed by the server", ""],
};

// Figures that must be 0: a confirmed message does not get lost, and none comes twice.
const WRONG = ["fanOutLost", "fanOutDoubled", "sendLost", "sendDoubled"];
const SMALL = ["ms", "µs", "KiB", "% of one"];
const GOAL = 2.5;

const cell = (value, unit) => (!known(value) ? "-" : SMALL.includes(unit) ? value.toFixed(1) : whole(value));

function goals(runs) {
  return ratios(runs, ["fanOut"], OURS).map(({ peer, ...ratio }) => {
    const reached = known(ratio.value) ? ratio.value >= GOAL : null;
    return { goal: `fan-out, of that of ${peer}`, atLeast: GOAL, ...ratio, unit: "x", reached };
  });
}

function tables(figures, runs) {
  const systems = Object.keys(figures).filter((system) => Object.values(figures[system]).some(known));
  const has = ([figure]) => systems.some((system) => known(figures[system][figure]));
  const measured = Object.entries(FIGURES).filter(has);
  table("medians", [
    ["", "", ...systems],
    ...measured.map(([figure, [measurement, name, unit]]) => [
      `${measurement}: ${name}`, unit, ...systems.map((system) => cell(figures[system][figure], unit)),
    ]),
  ]);
  const peers = systems.filter((system) => system !== OURS);
  const all = ratios(runs, Object.keys(FIGURES), OURS);
  const rows = measured
    .filter(([, [, , unit]]) => unit)
    .map(([figure, [measurement, name, unit]]) => [
      `${measurement}: ${name}${unit === "/s" ? "" : " (less is better)"}`,
      ...peers.map((peer) => spread(all.find((ratio) => ratio.figure === figure && ratio.peer === peer))),
    ])
    .filter(([, ...values]) => values.some((value) => value !== "-"));
  if (rows.length) table("notihub as a multiple of", [["", ...peers], ...rows]);
  const words = (reached) => (reached === null ? "not measured" : reached ? "reached" : "MISSED");
  table("goals", goals(runs).map(({ goal, atLeast, reached, ...ratio }) => [
    `notihub's ${goal}`, spread(ratio), `goal ${times(atLeast)}`, words(reached),
  ]));
}

const MEASURE = { "fan-out": fanOut, send, connections: idle };

async function main() {
  const given = options();
  const wanted = (system) => given.systems.includes(system === OURS ? OURS : "rabbitmq");
  const systems = [PLAIN, DURABLE, ACKED, OURS].filter(wanted);
  const [runs, figures] = [0, 0].map(() => Object.fromEntries(systems.map((system) => [system, {}])));
  const line = (content) => given.json && console.log(JSON.stringify(content));
  let failed = false;
  let leaving = false;
  for (const signal of ["SIGINT", "SIGTERM"]) {
    process.once(signal, () => {
      leaving = true;
      stopAll().finally(() => process.exit(130));
    });
  }
  for (const measurement of given.only) {
    for (let round = 0; round < given.rounds; round++) {
      const turns = SYSTEMS[measurement].filter(wanted);
      for (const system of round % 2 ? turns.toReversed() : turns) {
        say(`${measurement}: ${system}${given.rounds > 1 ? `, round ${round + 1} of ${given.rounds}` : ""}`);
        try {
          const found = await MEASURE[measurement](system, given);
          failed ||= WRONG.some((figure) => found[figure]);
          for (const [figure, value] of Object.entries(found)) {
            const all = (runs[system][figure] ??= []);
            all[round] = value;
            figures[system][figure] = median(all);
            const [, name, unit] = FIGURES[figure];
            say(`  ${system}: ${name} ${cell(value, unit)} ${unit}`);
            line({ system, measurement, figure, round: round + 1, name, value: known(value) ? value : null, unit });
          }
        } catch (error) {
          // After a signal everything ends, and a failure says nothing.
          if (leaving) return;
          if (error instanceof Wrong) throw error;
          failed = true;
          say(`  ${system}, ${measurement} failed: ${error.stack}`);
        }
      }
    }
  }
  if (given.json) {
    for (const { figure, peer, ...ratio } of ratios(runs, Object.keys(FIGURES), OURS)) {
      if (known(ratio.value) && FIGURES[figure][2]) line({ ratio: figure, to: peer, ...ratio });
    }
    for (const goal of goals(runs)) line({ ...goal, value: known(goal.value) ? goal.value : null });
  } else {
    tables(figures, runs);
  }
  process.exit(failed ? 1 : 0);
}

main().catch((error) => {
  say(error instanceof Wrong ? error.message : error.stack);
  process.exit(2);
});
