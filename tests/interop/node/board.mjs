// What bull-board's pages would show of some queues: its own adapter and its own handlers, without
// a web server.

import { createRequire } from 'node:module';

const JOBS_PER_PAGE = 100;

export async function showBoard(modules, queues) {
  const require = createRequire(modules);
  const { BullMQAdapter } = require('@bull-board/api/bullMQAdapter');
  const { queuesHandler } = require('@bull-board/api/dist/handlers/queues.js');
  const adapters = queues.map((queue) => new BullMQAdapter(queue));
  const byName = new Map(adapters.map((adapter) => [adapter.getName(), adapter]));
  const pages = {};
  for (const [name, adapter] of byName) {
    const query = { activeQueue: name, page: 1, jobsPerPage: JOBS_PER_PAGE, status: 'latest' };
    const { body } = await queuesHandler({ queues: byName, query, uiConfig: {} });
    const listed = body.queues.find((queue) => queue.name === name);
    const logs = {};
    for (const job of listed.jobs) logs[job.id] = await adapter.getJobLogs(job.id);
    pages[name] = {
      ...listed,
      logs,
      workers: await adapter.getWorkers(),
      completed: await adapter.getMetrics('completed'),
      schedulers: await adapter.getJobSchedulers(),
    };
  }
  return pages;
}
