// What every peer written in JavaScript has in common: the commands that the driver (bench.mjs) calls, each in a
// process of its own. A peer says only how it enqueues one job, how it enqueues many, and how it works.
// apalis/src/main.rs answers to the same commands, with the same lines on standard output.
//
//   setup                  makes its tables in the database of DATABASE_URL
//   single SECONDS         16 callers, one job in each call, as fast as they go -> {"count", "seconds"}
//   bulk JOBS              4 callers, 1000 jobs in each call                    -> {"count", "seconds"}
//   flood SECONDS          8 callers, 50 jobs in each call, as fast as they go  -> {"count", "seconds"}
//   pace SECONDS           20 jobs a second, one after the other                -> {"returned": [[n, at], …]}
//   work [stamps]          says {"ready"}, waits for "go", works until "stop"   -> {"at", "handled", "first", "stamps"}
//   both SECONDS           pace and work in one process                         -> both of their lines
//
// Moments are milliseconds of the system's clock, which all processes of one machine share.

import { createInterface } from "node:readline";

const WARM_UP = 40;
const PAUSE_MS = 50;

export const now = () => performance.timeOrigin + performance.now();
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const tell = (line) => process.stdout.write(JSON.stringify(line) + "\n");

// How many jobs a worker process may have fetched at a time: as the peer's file says, unless all are told a number.
export const held = (own) => Number(process.env.PEERS_HELD ?? own);

// As many bytes as the message that `notihub bench` posts.
export const job = (n) => ({
  n,
  type: "ORDER_COMPLETED",
  title: "Order 2026-1234 completed",
  body: "Thank you! Your order 2026-1234 is on its way and will be with you the day after tomorrow.",
  to: "kim@example.com",
  metadata: { orderId: "1234" },
});

const jobs = (first, count) => Array.from({ length: count }, (_, i) => job(first + i));

// So many callers at once, each with so many jobs in a call, until the time is over or all are in.
async function enqueue(peer, callers, batch, { seconds = Infinity, all = Infinity }) {
  const began = now();
  let [next, count] = [0, 0];
  const caller = async () => {
    while (next < all && now() < began + seconds * 1000) {
      const first = next;
      const size = Math.min(batch, all - first);
      next += size;
      await (batch === 1 ? peer.enqueue(job(first)) : peer.enqueueMany(jobs(first, size)));
      count += size;
    }
  };
  await Promise.all(Array.from({ length: callers }, caller));
  return { count, seconds: (now() - began) / 1000 };
}

// Counts from the moment the enqueuing call returned. The first jobs warm caches and pools, and are not counted.
async function pace(peer, seconds) {
  const returned = [];
  const began = now();
  for (let n = 0; n < WARM_UP + seconds * 20; n++) {
    await sleep(began + n * PAUSE_MS - now());
    await peer.enqueue(job(n));
    if (n >= WARM_UP) returned.push([n, now()]);
  }
  tell({ returned });
}

// A handler that does nothing but count, and what it counted, told every 20 ms.
function counter(withStamps) {
  let [handled, first, stamps] = [0, null, []];
  const report = () => tell({ at: now(), handled, first, stamps: stamps.splice(0) });
  const timer = setInterval(report, 20);
  return {
    handle({ n }) {
      first ??= now();
      handled++;
      if (withStamps) stamps.push([n, now()]);
    },
    end() {
      clearInterval(timer);
      report();
    },
  };
}

async function work(peer, withStamps) {
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  tell({ ready: true });
  if ((await lines.next()).value !== "go") return;
  const count = counter(withStamps);
  const stop = await peer.work(count.handle);
  await lines.next();
  await stop();
  count.end();
}

async function both(peer, seconds) {
  const count = counter(true);
  const stop = await peer.work(count.handle);
  await sleep(500);
  await pace(peer, seconds);
  await sleep(500);
  await stop();
  count.end();
}

// `open` gives what one process needs: {setup, enqueue, enqueueMany, work, close}.
export async function main(open) {
  const [command, argument] = process.argv.slice(2);
  const peer = await open(process.env.DATABASE_URL);
  switch (command) {
    case "setup":
      await peer.setup();
      break;
    case "single":
      tell(await enqueue(peer, 16, 1, { seconds: Number(argument) }));
      break;
    case "bulk":
      tell(await enqueue(peer, 4, 1000, { all: Number(argument) }));
      break;
    case "flood":
      tell(await enqueue(peer, 8, 50, { seconds: Number(argument) }));
      break;
    case "pace":
      await pace(peer, Number(argument));
      break;
    case "work":
      await work(peer, argument === "stamps");
      break;
    case "both":
      await both(peer, Number(argument));
      break;
    default:
      throw new Error(`unknown command: ${command}`);
  }
  await peer.close();
  process.exit(0);
}
