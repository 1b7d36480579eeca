// Open connections on which nothing happens: what each costs in the server, socket.io's and notihub's, one after the
// other on this machine. Each server is a process of its own, and so are its clients.

import { spawn, spawnSync } from "node:child_process";
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

const HELP = `Measures open connections on which nothing happens: socket.io's (WebSocket) and notihub's (SSE, \`bench
connections\`).

  node connections.mjs [flags]

  --connections N   open at once (default: 8000; each needs an open file in both processes)
  --seconds S       idle, while heart-beats go on (default: 30)
  --notihub FILE    the program to measure (default: $NOTIHUB, or target/release/notihub)`;

const OPENING = 100;

async function serve() {
  const { Server } = await import("socket.io");
  const http = createServer();
  // WebSocket only: no session of long polling is made first.
  new Server(http, { transports: ["websocket"] });
  http.listen(0, "127.0.0.1", () => console.log(http.address().port));
}

async function connect(port, connections) {
  const { io } = await import("socket.io-client");
  let next = 0;
  const one = () =>
    new Promise((opened, failed) => {
      const socket = io(`http://127.0.0.1:${port}`, { transports: ["websocket"], forceNew: true });
      socket.once("connect", opened);
      socket.once("connect_error", failed);
    });
  const opener = async () => {
    while (next++ < connections) await one();
  };
  await Promise.all(Array.from({ length: OPENING }, opener));
  console.log("open");
}

// Memory in KiB and CPU in seconds of a process.
function usage(pid) {
  const kib = Number(readFileSync(`/proc/${pid}/status`, "utf8").match(/^VmRSS:\s+(\d+)/m)[1]);
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
  return { kib, cpu: (Number(fields[11]) + Number(fields[12])) / 100 };
}

function start(role, ...args) {
  const child = spawn(process.execPath, [import.meta.filename, role, ...args], { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return { child, line: async () => (await lines.next()).value };
}

const sleep = (ms) => new Promise((wake) => setTimeout(wake, ms));

async function ofSocketIo(connections, seconds) {
  const server = start("serve");
  const port = await server.line();
  // So that what the first connections load once is not counted as theirs.
  const warm = start("connect", port, "100");
  await warm.line();
  const before = usage(server.child.pid);
  const began = performance.now();
  const clients = start("connect", port, String(connections));
  if ((await clients.line()) !== "open") throw new Error("not all connections could be opened");
  const opened = (performance.now() - began) / 1000;
  const open = usage(server.child.pid);
  await sleep(seconds * 1000);
  const after = usage(server.child.pid);
  for (const { child } of [clients, warm, server]) child.kill();
  return {
    "opened a second": connections / opened,
    "KiB each": (after.kib - before.kib) / connections,
    "CPU, % of one": ((after.cpu - open.cpu) / seconds) * 100,
  };
}

function ofNotihub(program, connections, seconds) {
  const args = ["bench", "connections", "--streams", connections, "--seconds", seconds, "--output", "json"].map(String);
  const run = spawnSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
  const figures = Object.fromEntries(
    run.stdout.trim().split("\n").map((line) => JSON.parse(line)).map((figure) => [figure.figure, figure.value]),
  );
  return {
    "opened a second": figures["opened"],
    "KiB each": figures["memory of each"],
    "CPU, % of one": figures["CPU of the hub while nothing happens"],
  };
}

const [role, ...rest] = process.argv.slice(2);
if (role === "serve") await serve();
else if (role === "connect") await connect(rest[0], Number(rest[1]));
else {
  const string = (fallback) => ({ type: "string", default: fallback });
  const { values } = parseArgs({
    options: {
      connections: string("8000"),
      seconds: string("30"),
      notihub: string(process.env.NOTIHUB ?? join(resolve(import.meta.dirname, "../.."), "target/release/notihub")),
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) {
    console.log(HELP);
    process.exit(0);
  }
  const [connections, seconds] = [Number(values.connections), Number(values.seconds)];
  const theirs = await ofSocketIo(connections, seconds);
  const ours = ofNotihub(values.notihub, connections, seconds);
  console.log(`${connections} idle connections`.padEnd(24), "socket.io".padStart(12), "notihub".padStart(12));
  for (const [name, value] of Object.entries(theirs)) {
    console.log(name.padEnd(24), value.toFixed(1).padStart(12), ours[name].toFixed(1).padStart(12));
  }
}
