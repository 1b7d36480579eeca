// graphile-worker. Tuned as its page on performance says for throughput: jobs are fetched 500 at a time into a local
// queue, 24 run at once, and completions and failures are gathered and written together.

import { Logger, makeWorkerUtils, run } from "graphile-worker";
import { held, main } from "./lib.mjs";

const TASK = "noop";
// It would write a line for each job.
const logger = new Logger(() => () => {});

main(async (connectionString) => {
  // The pool that enqueues is opened when it is first needed: a worker process has none.
  let opened;
  const utils = () => (opened ??= makeWorkerUtils({ connectionString, maxPoolSize: 16, logger }));
  return {
    setup: async () => (await utils()).migrate(),
    enqueue: async (job) => (await utils()).addJob(TASK, job),
    enqueueMany: async (jobs) => (await utils()).addJobs(jobs.map((payload) => ({ identifier: TASK, payload }))),
    async work(handle) {
      const runner = await run({
        preset: {
          worker: {
            connectionString,
            concurrentJobs: 24,
            maxPoolSize: 25,
            localQueue: { size: held(500) },
            completeJobBatchDelay: 0,
            failJobBatchDelay: 0,
          },
        },
        logger,
        noHandleSignals: true,
        taskList: { [TASK]: async (payload) => handle(payload) },
      });
      return () => runner.stop();
    },
    close: async () => (await opened)?.release(),
  };
});
