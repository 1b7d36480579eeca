// pg-boss. Tuned with what it offers for throughput: a worker fetches and completes a whole batch with one statement
// each, goes on at once while batches come back full, and two workers run in a process so that one fetches while the
// other completes. LISTEN/NOTIFY wakes an idle one.

import { PgBoss } from "pg-boss";
import { held, main } from "./lib.mjs";

const QUEUE = "noop";
const WORKERS = 2;

main(async (connectionString) => {
  const command = process.argv[2];
  const works = command === "work" || command === "both";
  const boss = new PgBoss({
    connectionString,
    max: 16,
    // A process that only enqueues leaves maintenance to the workers.
    supervise: works,
    schedule: false,
    useListenNotify: works,
  });
  boss.on("error", (error) => console.error(`pg-boss: ${error.message}`));
  await boss.start();
  return {
    setup: () => boss.createQueue(QUEUE, { notify: true }),
    enqueue: (job) => boss.send(QUEUE, job),
    enqueueMany: (jobs) => boss.insert(QUEUE, jobs.map((data) => ({ data }))),
    async work(handle) {
      const options = {
        batchSize: Math.ceil(held(2000) / WORKERS),
        burstWhenBatchFull: true,
        localConcurrency: WORKERS,
        pollingIntervalSeconds: 0.5,
        notifyPollingIntervalSeconds: 0.5,
      };
      await boss.work(QUEUE, options, async (jobs) => {
        for (const job of jobs) handle(job.data);
      });
      return () => boss.stop({ graceful: true });
    },
    close: () => boss.stop({ graceful: false }),
  };
});
