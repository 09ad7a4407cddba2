// A worker in Node without any package:
//
//   node examples/forward/worker.mjs 3000
//   bullwark worker --queue emails --forward http://127.0.0.1:3000
//
// Set BULLWARK_FORWARD_SECRET for both, and deliveries are signed. A secret that begins with `whsec_`
// is base64 behind that, as Standard Webhooks writes secrets.
import { createHmac, timingSafeEqual } from 'node:crypto';
import { createServer } from 'node:http';

const text = process.env.BULLWARK_FORWARD_SECRET ?? '';
const secret = text.startsWith('whsec_') ? Buffer.from(text.slice('whsec_'.length), 'base64') : text;

// One function per job name. What it returns is the job's result; what it throws fails the attempt.
const handlers = {
  async welcome({ data }) {
    return { sent: data.to };
  },
  async flaky({ attemptsMade }) {
    if (attemptsMade === 0) throw Object.assign(new Error('try again'), { retryInMs: 100 });
    return 'at the second attempt';
  },
  async hopeless() {
    throw Object.assign(new Error('no retry can help'), { name: 'UnrecoverableError' });
  },
};

function isGenuine(headers, body) {
  if (!text) return true;
  const id = headers['webhook-id'];
  const timestamp = headers['webhook-timestamp'];
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > 300) return false;
  const mac = createHmac('sha256', secret).update(`${id}.${timestamp}.`).update(body).digest('base64');
  const given = Buffer.from(headers['webhook-signature'] ?? '');
  const expected = Buffer.from(`v1,${mac}`);
  return given.length === expected.length && timingSafeEqual(given, expected);
}

const server = createServer(async (request, response) => {
  const answer = (status, value) => {
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(value));
  };
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  if (!isGenuine(request.headers, body)) return answer(401, { error: { message: 'bad signature' } });
  try {
    const { job } = JSON.parse(body);
    const handler = handlers[job.name];
    if (!handler) throw new Error(`no handler for ${job.name}`);
    answer(200, { returnvalue: (await handler(job)) ?? null });
  } catch (error) {
    const { name, message, stack, retryInMs } = error;
    answer(500, { error: { name, message, stack, retryInMs } });
  }
});
server.listen(Number(process.argv[2] ?? 3000), '127.0.0.1', () => {
  console.log(JSON.stringify({ port: server.address().port }));
});
