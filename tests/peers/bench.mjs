// The driver: a private PostgreSQL, a fresh database for each measurement, the peers' processes, and the table.
//
// Nothing of a peer runs in this process. It starts the peer's commands (lib.mjs says which), hears their lines, and
// asks the database whether all is done.

import { spawn } from "node:child_process";
import {
  chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import pg from "pg";
import { known, median, ratios, spread, table, times, whole } from "./figures.mjs";

const HERE = import.meta.dirname;
const ROOT = resolve(HERE, "../..");
const OURS = "notihub";
const MEASUREMENTS = ["single", "bulk", "drain", "latency", "pinned"];

// `left` counts the jobs whose completion is not yet committed.
const PEERS = {
  "graphile-worker": {
    command: [process.execPath, join(HERE, "graphile.mjs")],
    // A completed job is deleted.
    left: "select count(*)::int as left from graphile_worker._private_jobs",
  },
  "pg-boss": {
    command: [process.execPath, join(HERE, "pg-boss.mjs")],
    left: "select count(*)::int as left from pgboss.job where state <> 'completed'",
  },
  apalis: {
    command: [join(HERE, "apalis/target/release/peer-apalis")],
    left: "select count(*)::int as left from apalis.jobs where status <> 'Done'",
  },
};

const HELP = `Measures notihub beside graphile-worker, pg-boss and apalis, one after the other on one PostgreSQL.

  tests/peers/run [flags]

  --peers LIST          of ${[...Object.keys(PEERS), OURS].join(",")} (default: all)
  --only LIST           of ${MEASUREMENTS.join(",")} (default: all)
  --seconds S           for each timed measurement (default: 10)
  --pinned-seconds S    for which the old snapshot is held (default: 120)
  --jobs N              enqueued in bulk and drained (default: 100000)
  --rounds N            so often the systems take turns in each measurement, every second round the other way round; the
                        table has medians, and the ratios of the pairs with their spread (default: 1)
  --held N              that a peer's worker process may fetch ahead (default: what its documentation names, else 2000)
  --output text|json    a table, or a line of JSON for each figure as soon as it is known (default: text)
  --notihub FILE        the program to measure (default: $NOTIHUB, or target/release/notihub)
  --database-url URL    a server to use instead of a private one; its user must be allowed to create databases`;

function options() {
  const string = (fallback) => ({ type: "string", default: fallback });
  const { values } = parseArgs({
    options: {
      peers: string([...Object.keys(PEERS), OURS].join(",")),
      only: string(MEASUREMENTS.join(",")),
      seconds: string("10"),
      "pinned-seconds": string("120"),
      jobs: string("100000"),
      rounds: string("1"),
      held: { type: "string" },
      output: string("text"),
      notihub: string(process.env.NOTIHUB ?? join(ROOT, "target/release/notihub")),
      "database-url": { type: "string" },
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
  if (values.held) process.env.PEERS_HELD = String(number("held"));
  if (!["text", "json"].includes(values.output)) throw new Wrong(`--output: text or json, not ${values.output}`);
  return {
    peers: list("peers", [...Object.keys(PEERS), OURS]),
    only: list("only", MEASUREMENTS),
    seconds: number("seconds"),
    pinnedSeconds: number("pinned-seconds"),
    jobs: number("jobs"),
    rounds: number("rounds"),
    json: values.output === "json",
    notihub: resolve(values.notihub),
    databaseUrl: values["database-url"],
  };
}

// Something the caller can mend: told without a stack.
class Wrong extends Error {}

const say = (text) => console.error(`peers: ${text}`);
const now = () => performance.timeOrigin + performance.now();
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// ---- the server

// notihub makes its private cluster and starts its private server; then we stop it and start that server again with the
// same command line, alone. So all are measured on the very settings notihub chooses for this machine.
async function startServer(notihub) {
  const home = mkdtempSync("/var/tmp/peers-");
  chmodSync(home, 0o711);
  const hub = join(home, "hub");
  const up = start(notihub, ["up", "--data-dir", hub, "--listen", "127.0.0.1:0", "--email", "off", "--log", "error"], {
    env: { ...process.env, NOTIHUB_DATABASE_URL: undefined },
    cwd: home,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise((done, failed) => up.once("error", failed).once("close", done));
  await Promise.race([ended, new Promise((ready) => up.stdout.once("data", ready))]);
  up.kill("SIGTERM");
  await ended;
  const data = join(hub, "pg");
  if (!existsSync(join(data, "postmaster.opts"))) throw new Wrong(`${notihub} up made no private PostgreSQL`);
  const [program, args] = commandLine(readFileSync(join(data, "postmaster.opts"), "utf8"));
  const setting = (name) => args.find((arg) => arg.startsWith(`${name}=`))?.slice(name.length + 1);
  const socket = setting("unix_socket_directories");
  // PostgreSQL refuses to run as root: notihub has given the cluster to another user then.
  const { uid, gid } = statSync(data);
  mkdirSync(socket, { mode: 0o700, recursive: true });
  chownSync(socket, uid, gid);
  // Only the socket: a port that was free may be taken now.
  const server = spawn(program, [...args, "-c", "listen_addresses="], {
    ...(process.getuid() === 0 ? { uid, gid } : {}),
    cwd: home,
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  server.stderr.on("data", (text) => (log = (log + text).slice(-4000)));
  const gone = new Promise((done) => server.once("exit", done));
  const password = readFileSync(join(data, "notihub.password"), "utf8").trim();
  const where = `host=${encodeURIComponent(socket)}`;
  const url = (name) => `postgres://notihub:${password}@localhost:${setting("port")}/${name}?${where}`;
  const stop = async () => {
    server.kill("SIGINT");
    await gone;
    rmSync(home, { recursive: true, force: true });
  };
  for (const began = now(); ; await sleep(50)) {
    if (await query(url("postgres"), "select 1").then(() => true, () => false)) return { url, stop };
    if (server.exitCode !== null || now() - began > 60_000) {
      await stop();
      throw new Wrong(`the private PostgreSQL does not start:\n${log}`);
    }
  }
}

// postmaster.opts holds the program, and its arguments in double quotes.
function commandLine(text) {
  const program = text.slice(0, text.indexOf(' "'));
  return [program, [...text.slice(program.length).matchAll(/ "([^"]*)"/g)].map(([, arg]) => arg)];
}

function someServer(databaseUrl) {
  const url = (name) => Object.assign(new URL(databaseUrl), { pathname: `/${name}` }).href;
  // The one named in the URL is surely there; which `postgres` is not.
  return { url: (name) => (name === "postgres" ? databaseUrl : url(name)), stop: async () => {} };
}

async function connected(url, use) {
  const client = new pg.Client(url);
  // Whoever uses it is told by the next query.
  client.on("error", () => {});
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

const query = (url, sql) => connected(url, async (client) => (await client.query(sql)).rows);

// ---- processes of a peer

// All that are to go when this process does.
const children = new Set();

function start(program, args, how) {
  const child = spawn(program, args, how);
  children.add(child);
  child.once("close", () => children.delete(child));
  return child;
}

class Process {
  constructor(peer, url, args) {
    const [program, ...before] = PEERS[peer].command;
    this.name = `${peer} ${args.join(" ")}`;
    // What the last reports of a worker said, and every stamp.
    [this.ready, this.handled, this.first, this.stamps, this.reports, this.result] = [false, 0, null, [], [], null];
    this.child = start(program, [...before, ...args], {
      env: { ...process.env, DATABASE_URL: url, NODE_ENV: "production" },
      stdio: ["pipe", "pipe", "inherit"],
    });
    // It may be gone already when it is told something.
    this.child.stdin.on("error", () => {});
    const lines = createInterface({ input: this.child.stdout });
    lines.on("line", (line) => this.hear(JSON.parse(line)));
    this.ended = Promise.all([
      new Promise((done) => lines.once("close", done)),
      new Promise((done, failed) => {
        this.child.once("error", failed);
        this.child.once("exit", (code, signal) =>
          code === 0 ? done() : failed(new Error(`${this.name} ended with ${code ?? signal}`)));
      }),
    ]);
    // Whoever awaits it is told; nobody may be awaiting yet.
    this.ended.catch(() => (this.failed = true));
  }

  hear(line) {
    if (line.ready) {
      this.ready = true;
    } else if (line.handled !== undefined) {
      this.handled = line.handled;
      this.first ??= line.first;
      this.stamps.push(...line.stamps);
      this.reports.push([line.at, line.handled]);
    } else {
      this.result = line;
    }
  }

  tell(word) {
    this.child.stdin.write(`${word}\n`);
  }

  async end() {
    await this.ended;
    return this.result;
  }
}

// Waits until `done`, at most so long, and fails when one of the processes does.
async function waitFor(what, processes, done, seconds = 900) {
  for (const began = now(); !(await done()); await sleep(5)) {
    if (processes.some((process) => process.failed)) await Promise.all(processes.map((process) => process.ended));
    if (now() - began > seconds * 1000) throw new Error(`${what} takes longer than ${seconds} s`);
  }
}

const call = (peer, url, ...args) => new Process(peer, url, args.map(String)).end();

async function workers(peer, url, count, ...args) {
  const all = Array.from({ length: count }, () => new Process(peer, url, ["work", ...args]));
  await waitFor("a worker's start", all, () => all.every((worker) => worker.ready));
  return all;
}

async function stopped(all) {
  for (const worker of all) worker.tell("stop");
  await Promise.all(all.map((worker) => worker.end()));
}

// ---- the measurements of a peer, each in a database of its own

async function fresh(server, peer, measure) {
  const name = `peers_${peer.replaceAll("-", "_")}_${process.pid}`;
  const url = server.url(name);
  const admin = (sql) => query(server.url("postgres"), sql);
  await admin(`create database ${name}`);
  try {
    await call(peer, url, "setup");
    // What the one before left to write is written now, not in the middle of this.
    await admin("checkpoint");
    return await measure(url);
  } finally {
    // Only those of a measurement that failed, or that has no need of an orderly end.
    for (const child of children) child.kill("SIGKILL");
    await admin(`drop database if exists ${name} with (force)`);
  }
}

const rate = ({ count, seconds }) => count / seconds;

// 16 calls at a time, a job in each; a call returns when its commit is durable.
async function single(peer, url, { seconds }) {
  return { single: rate(await call(peer, url, "single", seconds)) };
}

// The peer's own bulk call, 4 callers with 1000 jobs in each call.
async function bulk(peer, url, { jobs }) {
  return { bulk: rate(await call(peer, url, "bulk", jobs)) };
}

// From the first call of a handler, in whichever process, until the database has no job that is not completed. Workers
// are started, connected and then let go together, so neither their start nor an idle second process counts; the batch
// that the first handler's job came with was fetched just before the clock started, in the peer's favour. The database
// is asked only once the handlers have seen every job, so asking costs nothing before; the end is the moment before the
// question that was answered with none.
async function drain(peer, url, { jobs }, count) {
  await call(peer, url, "bulk", jobs);
  // As notihub's bench does after it has filled its tables.
  await query(url, "vacuum (analyze)");
  await query(url, "checkpoint");
  const all = await workers(peer, url, count);
  for (const worker of all) worker.tell("go");
  await waitFor("a drain", all, () => all.reduce((sum, worker) => sum + worker.handled, 0) >= jobs);
  let end;
  await connected(url, (client) =>
    waitFor("the end of a drain", all, async () => {
      end = now();
      return (await client.query(PEERS[peer].left)).rows[0].left === 0;
    }));
  const first = Math.min(...all.map((worker) => worker.first ?? Infinity));
  await stopped(all);
  say(`  handled by each process: ${all.map((worker) => worker.handled).join(", ")}`);
  return jobs / ((end - first) / 1000);
}

function waits(returned, stamps) {
  const called = new Map(stamps);
  const missing = returned.filter(([n]) => !called.has(n)).length;
  if (missing) throw new Error(`${missing} of ${returned.length} jobs were not called`);
  // Called before its caller had heard counts as no wait, as in notihub's bench.
  const sorted = returned.map(([n, at]) => Math.max(0, called.get(n) - at)).sort((a, b) => a - b);
  return (quantile) => sorted[Math.floor((sorted.length - 1) * quantile)];
}

// 20 jobs a second, nothing else going on: enqueuing call returned -> handler called, by the machine's one clock.
async function latencyInOne(peer, url, { seconds }) {
  const process = new Process(peer, url, ["both", String(seconds)]);
  const { returned } = await process.end();
  const at = waits(returned, process.stamps);
  return { one50: at(0.5), one99: at(0.99) };
}

async function latencyAcross(peer, url, { seconds }) {
  const [worker] = await workers(peer, url, 1, "stamps");
  worker.tell("go");
  await sleep(500);
  const { returned } = await call(peer, url, "pace", seconds);
  await sleep(500);
  await stopped([worker]);
  const at = waits(returned, worker.stamps);
  return { across50: at(0.5), across99: at(0.99) };
}

// A second connection holds an old snapshot, so that no dead row can be removed, while 8 callers enqueue 50 jobs in a
// call as fast as they go and one worker process works: the load of notihub's bench. Jobs handled a second in the first
// sixth, without the first second, and in the last.
async function pinned(peer, url, { pinnedSeconds }) {
  return connected(url, async (pin) => {
    await pin.query("set idle_in_transaction_session_timeout = 0");
    await pin.query("begin isolation level repeatable read");
    await pin.query("select txid_current()");
    const [worker] = await workers(peer, url, 1);
    worker.tell("go");
    const began = now();
    const load = await call(peer, url, "flood", pinnedSeconds);
    await pin.query("select 1");
    await pin.query("rollback");
    const part = Math.max(1, Math.floor(pinnedSeconds / 6)) * 1000;
    const end = began + pinnedSeconds * 1000;
    const handledAt = (moment) => worker.reports.filter(([at]) => at <= moment).at(-1) ?? [began, 0];
    const between = (from, to) => {
      const [[a, x], [b, y]] = [handledAt(from), handledAt(to)];
      return b > a ? (y - x) / ((b - a) / 1000) : 0;
    };
    const left = whole(load.count - worker.handled);
    say(`  enqueued ${whole(rate(load))}/s, handled ${whole(between(began, end))}/s, ${left} left over`);
    return { pinnedFirst: between(began + 1000, began + 1000 + part), pinnedLast: between(end - part, end) };
  });
}

// ---- ours

// Figures of `notihub bench`, by scenario and name. `bulk` is over HTTP too.
const BENCH = {
  single: ["intake", { single: "accepted, 16 connections" }],
  bulk: ["intake-batch", { bulk: "accepted" }],
  drain: ["drain", { drain1: "drained", drain2: "drained by two processes" }],
  latency: ["latency", {
    one50: "one process, p50",
    one99: "one process, p99",
    across50: "across processes, with the provider's HTTP, p50",
    across99: "across processes, with the provider's HTTP, p99",
  }],
  pinned: ["pinned", { pinnedFirst: "delivered in the first sixth", pinnedLast: "delivered in the last sixth" }],
};

async function ours(server, measurement, { notihub, seconds, pinnedSeconds, jobs }) {
  const [scenario, names] = BENCH[measurement];
  const args = ["bench", "--database-url", server.url("postgres"), scenario, "--output", "json"];
  args.push("--seconds", seconds, "--pinned-seconds", pinnedSeconds, "--deliveries", jobs);
  const child = start(notihub, args.map(String), { stdio: ["ignore", "pipe", "inherit"] });
  const gone = new Promise((done, failed) => child.once("error", failed).once("close", done));
  const told = [];
  createInterface({ input: child.stdout }).on("line", (line) => told.push(JSON.parse(line)));
  const code = await gone;
  if (code !== 0) throw new Error(`notihub bench ${scenario} ended with ${code}`);
  const value = (name) => told.find((line) => line.scenario === scenario && line.figure === name)?.value;
  const lost = told.find((line) => line.figure === "fsck findings" && line.value > 0);
  if (lost) throw new Error(`notihub bench ${scenario}: fsck found ${lost.value} rows`);
  return Object.fromEntries(Object.entries(names).map(([figure, name]) => [figure, value(name)]));
}

// ---- figures

const FIGURES = {
  single: ["single enqueue, 16 callers", "/s"],
  bulk: ["bulk enqueue", "/s"],
  drain1: ["drain, 1 process", "/s"],
  drain2: ["drain, 2 processes", "/s"],
  one50: ["latency in one process, p50", "ms"],
  one99: ["latency in one process, p99", "ms"],
  across50: ["latency across processes, p50", "ms"],
  across99: ["latency across processes, p99", "ms"],
  pinnedFirst: ["old snapshot held, first sixth", "/s"],
  pinnedLast: ["old snapshot held, last sixth", "/s"],
};

// What of `figures` (system -> figure -> value) must reach how much.
const GOALS = [
  ["single enqueue, of graphile-worker's", 4, (f) => f[OURS]?.single / f["graphile-worker"]?.single, "x"],
  ["drain, of graphile-worker's", 1, (f) => f[OURS]?.drain1 / f["graphile-worker"]?.drain1, "x"],
  ["drain, of apalis'", 3, (f) => f[OURS]?.drain1 / f.apalis?.drain1, "x"],
  ["old snapshot held, last sixth of first", 95, (f) => (f[OURS]?.pinnedLast / f[OURS]?.pinnedFirst) * 100, "%"],
];

const cell = (value, unit) => (!known(value) ? "-" : unit === "ms" ? value.toFixed(1) : whole(value));

function tables(figures, runs) {
  const systems = Object.keys(figures);
  table("jobs a second; latency p50/p99 in ms; old snapshot held: first -> last sixth", [
    ["", "single x16", "bulk", "drain 1 proc", "drain 2 proc", "latency in one", "latency across", "old snapshot held"],
    ...systems.map((system) => {
      const of = figures[system];
      const one = (figure) => cell(of[figure], FIGURES[figure][1]);
      const pair = (a, between, b) => (known(of[a]) ? one(a) + between + one(b) : "-");
      return [
        system, one("single"), one("bulk"), one("drain1"), one("drain2"),
        pair("one50", "/", "one99"), pair("across50", "/", "across99"), pair("pinnedFirst", " -> ", "pinnedLast"),
      ];
    }),
  ]);
  if (!systems.includes(OURS)) return;
  console.log([
    `${OURS}: single and bulk (batches of 500) over HTTP, every attempt kept as history; latency across processes`,
    `includes the HTTP call of the provider. The peers: their own call in the caller's process, one row for each job.`,
  ].join("\n"));
  const peers = systems.filter((system) => system !== OURS);
  if (peers.length) {
    const rows = Object.entries(FIGURES).map(([figure, [name, unit]]) => [
      unit === "ms" ? `${name} (less is better)` : name,
      ...ratios(runs, Object.keys(FIGURES), OURS).filter((ratio) => ratio.figure === figure).map(spread),
    ]);
    const measured = rows.filter(([, ...values]) => values.some((value) => value !== "-"));
    table("notihub as a multiple of", [["", ...peers], ...measured]);
  }
  const said = (value, unit) => (unit === "x" ? times(value) : known(value) ? `${value.toFixed(1)} %` : "-");
  table("goals", goals(figures).map(({ goal, atLeast, value, unit, reached }) => [
    `notihub's ${goal}`, said(value, unit), `goal ${said(atLeast, unit)}`,
    reached === null ? "not measured" : reached ? "reached" : "MISSED",
  ]));
}

function goals(figures) {
  return GOALS.map(([goal, atLeast, of, unit]) => {
    const value = of(figures);
    return { goal, atLeast, value, unit, reached: known(value) ? value >= atLeast : null };
  });
}

// ---- all together

const MEASURE = {
  single: [single],
  bulk: [bulk],
  latency: [latencyInOne, latencyAcross],
  pinned: [pinned],
  drain: [
    async (peer, url, sizes) => ({ drain1: await drain(peer, url, sizes, 1) }),
    async (peer, url, sizes) => ({ drain2: await drain(peer, url, sizes, 2) }),
  ],
};

async function main() {
  const given = options();
  if (!existsSync(given.notihub) && (given.peers.includes(OURS) || !given.databaseUrl)) {
    throw new Wrong(`${given.notihub} is not there: cargo build --release, or name it with --notihub`);
  }
  const server = given.databaseUrl ? someServer(given.databaseUrl) : await startServer(given.notihub);
  let leaving = false;
  const leave = async (code) => {
    if (leaving) return;
    leaving = true;
    for (const child of children) child.kill("SIGKILL");
    await server.stop();
    process.exit(code);
  };
  process.once("SIGINT", () => leave(130));
  process.once("SIGTERM", () => leave(143));
  let failed = false;
  // Of each system and figure the values of all rounds, and their median.
  const [runs, figures] = [0, 0].map(() => Object.fromEntries(given.peers.map((system) => [system, {}])));
  const line = (content) => given.json && console.log(JSON.stringify(content));
  const add = (system, round, found) => {
    for (const [figure, value] of Object.entries(found)) {
      const all = (runs[system][figure] ??= []);
      all[round] = value;
      figures[system][figure] = median(all);
      const [name, unit] = FIGURES[figure];
      if (known(value)) say(`  ${system}: ${name} ${cell(value, unit)} ${unit}`);
      line({ system, figure, round: round + 1, name, value: known(value) ? value : null, unit });
    }
  };
  try {
    const asked = ["server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers"];
    const columns = asked.map((name) => `current_setting('${name}') as ${name}`);
    const [told] = await query(server.url("postgres"), `select ${columns}`);
    say(asked.map((name) => `${name} ${told[name]}`).join(", "));
    const turns = given.only.flatMap((measurement) =>
      Array.from({ length: given.rounds }, (_, round) =>
        (round % 2 ? given.peers.toReversed() : given.peers).map((system) => ({ measurement, round, system }))).flat());
    for (const { measurement, round, system } of turns) {
      say(`${measurement}: ${system}${given.rounds > 1 ? `, round ${round + 1} of ${given.rounds}` : ""}`);
      const measures = system === OURS
        ? [() => ours(server, measurement, given)]
        : MEASURE[measurement].map((measure) => () =>
            fresh(server, system, (url) => measure(system, url, given)));
      for (const run of measures) {
        try {
          add(system, round, await run());
        } catch (error) {
          // A signal ended everything: what fails now says nothing.
          if (leaving) return;
          failed = true;
          say(`  ${system}, ${measurement} failed: ${error.message}`);
        }
      }
      await query(server.url("postgres"), "checkpoint");
    }
    if (given.json) {
      for (const { figure, peer, ...ratio } of ratios(runs, Object.keys(FIGURES), OURS)) {
        if (known(ratio.value)) line({ ratio: figure, to: peer, ...ratio });
      }
      for (const goal of goals(figures)) line({ ...goal, value: known(goal.value) ? goal.value : null });
    } else {
      tables(figures, runs);
    }
  } catch (error) {
    if (leaving) return;
    say(error.stack);
    failed = true;
  }
  await leave(failed ? 1 : 0);
}

main().catch((error) => {
  say(error instanceof Wrong ? error.message : error.stack);
  process.exit(2);
});
