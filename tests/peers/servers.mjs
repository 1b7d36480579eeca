// The servers that rooms.mjs and rabbit_clients.mjs talk to: private ones, on the loopback interface, with folders of
// their own, which are gone when they stop. Each has the same members:
//
//   url, pid                 of its WebSocket endpoint; of its process
//   cpu()                    seconds of CPU so far: {server, database}
//   kib()                    resident memory of the server's process
//   people(count)            users: [{id, connect}], with the headers of CONNECT
//   rooms(members)           a room for each list of users (numbers of `people`): [{id, topic, send, sendHeaders}]
//   personal(user)           a destination with the news of that user alone
//   listening(n)             headers with which listener n subscribes
//   acks                     listeners acknowledge each message
//   refusals                 subscriptions by which a sender learns that a frame was refused
//   settings()               the settings on which its durability depends, in words
//   stop()

import { spawn, spawnSync } from "node:child_process";
import {
  chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import pg from "pg";
import { now, sleep } from "./stomp.mjs";

// A fault that the caller can remove; it is shown without a stack.
export class Wrong extends Error {}

// Processes that must end when this one does. SIGTERM, so that notihub stops its PostgreSQL.
const children = new Set();
process.once("exit", () => children.forEach((child) => child.kill("SIGTERM")));
// The stop functions of the servers that run.
const stops = new Set();

export function start(program, args, how) {
  const child = spawn(program, args, how);
  children.add(child);
  child.gone = new Promise((done) => child.once("close", done).once("error", done));
  child.gone.then(() => children.delete(child));
  return child;
}

// Ends every server that runs.
export const stopAll = () => Promise.all([...stops].map((stop) => stop()));

// Makes a private folder and calls `open` with it. Returns the server that `open` returns, with its `stop`, which ends
// the processes in `ends` from the last to the first and removes the folder; that also happens if `open` fails.
async function inFolder(name, open) {
  const home = mkdtempSync(`/var/tmp/peers-${name}-`);
  const ends = [];
  const stop = async () => {
    if (!stops.delete(stop)) return;
    for (const child of ends.toReversed()) {
      child.kill("SIGTERM");
      await child.gone;
    }
    rmSync(home, { recursive: true, force: true });
  };
  stops.add(stop);
  try {
    return { ...(await open(home, ends)), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function until(what, child, done, seconds = 60) {
  for (const began = now(); !(await done()); await sleep(50)) {
    if (child.exitCode !== null || child.signalCode !== null) throw new Wrong(`${what} ended`);
    if (now() - began > seconds * 1000) throw new Wrong(`${what} takes longer than ${seconds} s to start`);
  }
}

// Fields of /proc/PID/stat after the name: 1 is the parent, 11 to 14 are user and system time of the process and of its
// ended children, in hundredths of a second.
const stat = (pid) => readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
const seconds = (fields, ...which) => which.reduce((sum, n) => sum + Number(fields[n]), 0) / 100;
const cpuOf = (pid) => seconds(stat(pid), 11, 12);
const kibOf = (pid) => Number(readFileSync(`/proc/${pid}/status`, "utf8").match(/^VmRSS:\s+(\d+)/m)[1]);

// Of a process with its children, those that ended included.
function cpuOfFamily(pid) {
  let sum = seconds(stat(pid), 11, 12, 13, 14);
  for (const child of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const fields = stat(child);
      if (fields[1] === String(pid)) sum += seconds(fields, 11, 12);
    } catch {
      // It ended meanwhile, and its parent has counted it.
    }
  }
  return sum;
}

async function freePorts(count) {
  const servers = Array.from({ length: count }, () => createServer().listen(0, "127.0.0.1"));
  await Promise.all(servers.map((server) => new Promise((done) => server.once("listening", done))));
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))));
  return ports;
}

// Runs `call` for each of `items`, some at a time, and returns the results in order.
async function each(items, call, atOnce = 16) {
  const results = [];
  let next = 0;
  const one = async () => {
    while (next < items.length) {
      const n = next++;
      results[n] = await call(items[n], n);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, one));
  return results;
}

// ---- notihub

const PEOPLE_A_CALL = 100;

export function startNotihub({ program }) {
  if (!existsSync(program)) {
    throw new Wrong(`${program} is not there: cargo build --release, or name it with --notihub`);
  }
  return inFolder("notihub", (home, ends) => openNotihub(program, home, ends));
}

async function openNotihub(program, home, ends) {
  // PostgreSQL runs as another user if this one is root.
  chmodSync(home, 0o711);
  const hub = join(home, "hub");
  // The limits protect from people who write too much; the generator is one.
  const flags = ["--user-sends", 100_000, "--room-sends", 100_000, "--live-connections", 100_000].map(String);
  flags.push("--data-dir", hub, "--listen", "127.0.0.1:0", "--email", "off", "--log", "error");
  const env = { ...process.env, NOTIHUB_DATABASE_URL: undefined };
  const child = start(program, ["up", ...flags], { cwd: home, env, stdio: ["ignore", "pipe", "inherit"] });
  ends.push(child);
  let said = "";
  child.stdout.on("data", (text) => (said += text));
  await until("notihub", child, () => / answers at http:\S+ /.test(said) && said.includes("Ctrl-C"));
  const base = said.match(/ answers at (http:\S+) /)[1];
  const postmaster = Number(readFileSync(join(hub, "pg/postmaster.pid"), "utf8").split("\n")[0]);
  const set = spawnSync(program, ["partner", "--data-dir", hub, "set", "demo", "--rate-limit-tps", "100000"]);
  if (set.status !== 0) throw new Wrong(`notihub partner set ended with ${set.status}: ${set.stderr}`);

  const post = async (path, token, body) => {
    const answer = await fetch(base + path, {
      method: "POST",
      headers: { "content-type": "application/json", ...(token ? { authorization: `Bearer ${token}` } : {}) },
      body: JSON.stringify(body),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`POST ${path} answered ${answer.status}: ${text}`);
    return JSON.parse(text);
  };
  const { partner } = JSON.parse(readFileSync(join(hub, "credentials.json"), "utf8"));
  const { accessToken } = await post("/v1/auth/token", null, partner);
  let users = [];

  const query = async (sql, values) => {
    const options = readFileSync(join(hub, "pg/postmaster.opts"), "utf8");
    const setting = (name) => options.match(new RegExp(`"${name}=([^"]*)"`))[1];
    const password = readFileSync(join(hub, "pg/notihub.password"), "utf8").trim();
    const client = new pg.Client({
      host: setting("unix_socket_directories"), port: Number(setting("port")), user: "notihub", password,
      database: "notihub",
    });
    await client.connect();
    try {
      return (await client.query(sql, values)).rows;
    } finally {
      await client.end();
    }
  };

  return {
    url: `${base.replace("http", "ws")}/ws`,
    base,
    pid: child.pid,
    cpu: () => ({ server: cpuOf(child.pid), database: cpuOfFamily(postmaster) }),
    kib: () => kibOf(child.pid),
    people: async (count) => {
      const made = await each(Array.from({ length: count }), async (_, n) => {
        const { accessToken: token, userId } = await post(`/v1/users/u-${n}/token`, accessToken, {});
        return { id: userId, token, connect: { Authorization: `Bearer ${token}` } };
      });
      users = made;
      return made;
    },
    rooms: (members) =>
      each(members, async (of) => {
        const [owner, ...others] = of.map((n) => users[n]);
        const ids = others.map(({ id }) => id);
        const body = { type: "GROUP", title: "Lunch", maxParticipants: Math.max(of.length, 2) };
        const first = { ...body, participantIds: ids.splice(0, PEOPLE_A_CALL) };
        const { data } = await post("/api/v1/chatrooms", owner.token, first);
        while (ids.length) {
          const userIds = ids.splice(0, PEOPLE_A_CALL);
          await post(`/api/v1/chatrooms/${data.roomId}/participants`, owner.token, { userIds });
        }
        const topic = `/exchange/chat.exchange/chat.channel.${data.roomId}.message`;
        return { id: data.roomId, topic, send: "/app/chat", sendHeaders: {} };
      }, 4),
    personal: ({ id }) => `/exchange/chat.exchange/chat.user.${id}.notification`,
    refusals: [{ destination: "/user/queue/errors", headers: {} }],
    listening: () => ({}),
    acks: false,
    // The numbers of the messages of a step that are stored.
    stored: async (step) => {
      const rows = await query("select temp_id from chat_messages where temp_id like $1", [`${step}-%`]);
      return rows.map(({ temp_id: id }) => Number(id.slice(id.indexOf("-") + 1)));
    },
    settings: async () => {
      const asked = ["server_version", "fsync", "synchronous_commit", "full_page_writes"];
      const [found] = await query(`select ${asked.map((name) => `current_setting('${name}') as ${name}`)}`);
      return `PostgreSQL ${asked.map((name) => `${name} ${found[name]}`).join(", ")}`;
    },
  };
}

// ---- RabbitMQ

const EXCHANGE = "chat.exchange";
const routingKey = (room) => `chat.channel.${room}.message`;
const roomName = (n) => `r${n}`;

// The scripts of the newest version in the places where packages have it.
export function findRabbit() {
  for (const above of ["/usr/lib/rabbitmq/lib", "/opt", join(homedir(), "rabbitmq")]) {
    const versions = existsSync(above) ? readdirSync(above).filter((name) => /^rabbitmq_server-/.test(name)) : [];
    if (versions.length) return join(above, versions.sort().at(-1), "sbin");
  }
  return null;
}

// A private node. `durable`: subscriptions have durable queues, and messages are persistent. `acks`: and messages are
// acknowledged; without that, a message whose consumer waits is never written. `queues`: so many rooms have a durable
// queue without a consumer.
export function startRabbit({ durable = false, acks = false, queues = 0, scripts = findRabbit() } = {}) {
  if (!scripts) {
    throw new Wrong("RabbitMQ is not here: install rabbitmq-server, or name its folder sbin with --rabbitmq");
  }
  if (!existsSync(join(scripts, "rabbitmq-server"))) throw new Wrong(`${scripts} has no rabbitmq-server`);
  return inFolder("rabbitmq", (home, ends) => openRabbit({ durable, acks, queues }, scripts, home, ends));
}

async function openRabbit({ durable, acks, queues }, scripts, home, ends) {
  const [amqp, stomp, web, epmdPort, distribution] = await freePorts(5);
  const file = (name, text) => {
    writeFileSync(join(home, name), text);
    return join(home, name);
  };
  const vhost = "/";
  const rooms = Array.from({ length: queues }, (_, n) => roomName(n));
  const definitions = file("definitions.json", JSON.stringify({
    vhosts: [{ name: vhost }],
    users: [{ name: "guest", password: "guest", tags: "administrator" }],
    permissions: [{ user: "guest", vhost, configure: ".*", write: ".*", read: ".*" }],
    exchanges: [
      { name: EXCHANGE, vhost, type: "topic", durable: true, auto_delete: false, internal: false, arguments: {} },
    ],
    queues: rooms.map((name) => ({ name, vhost, durable: true, auto_delete: false, arguments: {} })),
    bindings: rooms.map((name) => ({
      source: EXCHANGE, vhost, destination: name, destination_type: "queue", arguments: {},
      routing_key: routingKey(name),
    })),
  }));
  const config = file("rabbitmq.conf", [
    `listeners.tcp.1 = 127.0.0.1:${amqp}`,
    `stomp.listeners.tcp.1 = 127.0.0.1:${stomp}`,
    `web_stomp.tcp.listener = 127.0.0.1:${web}`,
    // For clients that send their own credentials, which this server does not know.
    "stomp.default_user = guest",
    "stomp.default_pass = guest",
    `load_definitions = ${definitions}`,
  ].join("\n") + "\n");
  mkdirSync(join(home, "log"));
  const env = {
    ...process.env,
    // The cookie of the node is there.
    HOME: home,
    RABBITMQ_NODENAME: "peers@localhost",
    RABBITMQ_NODE_IP_ADDRESS: "127.0.0.1",
    RABBITMQ_NODE_PORT: String(amqp),
    RABBITMQ_DIST_PORT: String(distribution),
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: "-kernel inet_dist_use_interface {127,0,0,1}",
    RABBITMQ_MNESIA_BASE: join(home, "mnesia"),
    RABBITMQ_LOG_BASE: join(home, "log"),
    RABBITMQ_GENERATED_CONFIG_DIR: join(home, "config"),
    RABBITMQ_FEATURE_FLAGS_FILE: join(home, "feature_flags"),
    RABBITMQ_ENABLED_PLUGINS_FILE: file("plugins", "[rabbitmq_web_stomp].\n"),
    RABBITMQ_CONF_ENV_FILE: file("env.conf", ""),
    RABBITMQ_CONFIG_FILE: config,
    RABBITMQ_ADVANCED_CONFIG_FILE: join(home, "advanced.config"),
    RABBITMQ_PID_FILE: join(home, "pid"),
    ERL_EPMD_ADDRESS: "127.0.0.1",
    ERL_EPMD_PORT: String(epmdPort),
  };
  const epmd = start("epmd", ["-address", "127.0.0.1", "-port", String(epmdPort)], { env, stdio: "ignore" });
  const child = start(join(scripts, "rabbitmq-server"), [], { cwd: home, env, stdio: ["ignore", "pipe", "inherit"] });
  ends.push(epmd, child);
  let said = "";
  child.stdout.on("data", (text) => (said += text));
  await until("RabbitMQ", child, () => said.includes("completed with") && existsSync(join(home, "pid")), 120);
  const pid = Number(readFileSync(join(home, "pid"), "utf8"));
  const sendHeaders = durable || queues ? { persistent: "true" } : {};
  const url = `ws://127.0.0.1:${web}/ws`;
  const connect = { login: "guest", passcode: "guest" };
  return {
    url,
    base: `http://127.0.0.1:${web}`,
    pid,
    cpu: () => ({ server: cpuOf(pid), database: 0 }),
    kib: () => kibOf(pid),
    people: async (count) => Array.from({ length: count }, (_, n) => ({ id: `u${n}`, connect })),
    rooms: async (members) =>
      members.map((_, n) => {
        const topic = `/exchange/${EXCHANGE}/${routingKey(roomName(n))}`;
        return { id: roomName(n), topic, send: topic, sendHeaders };
      }),
    personal: ({ id }) => `/exchange/${EXCHANGE}/chat.user.${id}.notification`,
    refusals: [],
    listening: (n) => ({
      ...(durable ? { durable: "true", "auto-delete": "false", "x-queue-name": `listener.${n}`, id: `l-${n}` } : {}),
      ...(acks ? { ack: "client-individual" } : {}),
    }),
    acks,
    // A destination that yields what is stored of a room.
    queueOf: (room) => `/amq/queue/${room.id}`,
    settings: async () => `RabbitMQ ${dirname(scripts).split("-").at(-1)}`,
  };
}
