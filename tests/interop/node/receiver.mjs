// The receiving end of `bullwark worker --forward`: rebuilds the job with a BullMQ library from
// the fields that it gets, runs its steps, and says over HTTP how it ended.

import { createServer } from 'node:http';
import { runSteps } from './steps.mjs';

const MOVED = ['DelayedError', 'WaitingError', 'WaitingChildrenError'];

/** Listens on a free port of the loopback; `queueOf(prefix, name)` gives a Queue. */
export async function startReceiver(bullmq, queueOf, who) {
  const deliveries = [];
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString();
    const delivery = JSON.parse(text);
    deliveries.push({ headers: request.headers, text, ...delivery });
    const { status, body } = await answer(bullmq, queueOf, who, delivery);
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(body));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/jobs`,
    deliveries,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function answer(bullmq, queueOf, who, delivery) {
  const queue = await queueOf(delivery.prefix, delivery.queue);
  const job = rebuild(bullmq, queue, delivery);
  job.token = delivery.token;
  try {
    const returnvalue = await runSteps(bullmq, queue, job, delivery.token, who);
    return { status: 200, body: { returnvalue: returnvalue ?? null } };
  } catch (error) {
    const { name, message, stack } = error;
    const status = MOVED.includes(name) ? 409 : 500;
    return { status, body: { error: { name, message, stack } } };
  }
}

/** Version 5 reads the fields of the job's hash, version 6 what its own backend makes of them. */
function rebuild(bullmq, queue, { job, raw }) {
  if (!('backend' in queue)) return bullmq.Job.fromJSON(queue, raw, job.id);
  const opts = bullmq.Job.optsFromJSON(raw.opts);
  return bullmq.Job.fromJSON(queue, { ...job, data: raw.data, opts }, job.id);
}
