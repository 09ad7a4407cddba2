// Drives one version of the npm package for a test: one JSON request per line on standard input,
// one JSON line per answer and per event on standard output. Ends when its input ends.
//
//   node driver.mjs MODULES VERSION REDIS_PORT [NOW_MS | off:MS]
//
// MODULES is the folder that holds node_modules; VERSION is 5 or 6. With NOW_MS the clock stands;
// with off:MS it runs, but is wrong by so much.
//
//   request  {id, op, ...}                answer  {id, value} | {id, error: {name, message, code}}
//   event    {from, event, args}          of a worker or a QueueEvents; a job as its id

import { createRequire, Module } from 'node:module';
import { createInterface } from 'node:readline';
import path from 'node:path';
import { install, setClock, shiftClock } from './clock.mjs';
import { showBoard } from './board.mjs';
import { startReceiver } from './receiver.mjs';
import { runSteps } from './steps.mjs';

const [modulesDir, version, port, nowMs] = process.argv.slice(2);
if (nowMs?.startsWith('off:')) {
  install();
  shiftClock(Number(nowMs.slice('off:'.length)));
} else if (nowMs !== undefined) {
  install();
  setClock(Number(nowMs));
}
const modules = path.join(modulesDir, 'package.json');
const packageName = `bullmq${version}`;
// bull-board asks for `bullmq`: give it the version under test.
const resolve = Module._resolveFilename;
Module._resolveFilename = function (request, ...rest) {
  return resolve.call(this, request === 'bullmq' ? packageName : request, ...rest);
};
const bullmq = createRequire(modules)(packageName);
const connection = { host: '127.0.0.1', port: Number(port), maxRetriesPerRequest: null };

const things = new Map();
const heldJobs = new Map();

function say(line) {
  process.stdout.write(JSON.stringify(line) + '\n');
}

function thing(name) {
  if (!things.has(name)) throw new Error(`no such thing: ${name}`);
  return things.get(name);
}

/** Jobs become their plain fields; everything else is JSON already. */
function plain(value) {
  if (value instanceof bullmq.Job) {
    const { id, token } = value;
    return { ...value.toJSON(), id, token, parentKey: value.parentKey };
  }
  // A node of a flow: {job, children}.
  if (value?.job instanceof bullmq.Job) {
    return { id: value.job.id, children: (value.children ?? []).map(plain) };
  }
  if (value instanceof Error) return { name: value.name, message: value.message };
  if (Array.isArray(value)) return value.map(plain);
  return value ?? null;
}

/** {$error, name} becomes an error, {$job} a job that is held; {$thing} what was made before. */
function arg(value) {
  if (value === null || typeof value !== 'object') return value;
  if ('$error' in value) {
    const error = value.name ? new bullmq[value.name](value.$error) : new Error(value.$error);
    error.stack = `Error: ${value.$error}`;
    return error;
  }
  if ('$thing' in value) return thing(value.$thing);
  return value;
}

function relay(name, emitter) {
  const emit = emitter.emit.bind(emitter);
  emitter.emit = (event, ...args) => {
    // `completed:<id>` only repeats `completed`.
    if (typeof event === 'string' && !event.includes(':')) {
      const ids = args.map((value) => (value instanceof bullmq.Job ? value.id : plain(value)));
      say({ from: name, event, args: ids });
    }
    return emit(event, ...args);
  };
  emitter.on('error', () => {});
  return emitter;
}

const helpers = new Map();
/** One queue object per queue, for jobs that reach beyond themselves. */
async function queueOf(prefix, name) {
  const key = `${prefix}:${name}`;
  if (!helpers.has(key)) {
    const options = { connection, prefix, skipMetasUpdate: true };
    helpers.set(key, new bullmq.Queue(name, options));
  }
  return helpers.get(key);
}

const ops = {
  clock: ({ ms }) => setClock(ms),

  queue: async ({ as, name, opts }) => {
    const queue = new bullmq.Queue(name, { connection, ...opts });
    queue.on('error', () => {});
    things.set(as, queue);
    await queue.waitUntilReady();
  },

  flows: async ({ as, opts }) => {
    things.set(as, new bullmq.FlowProducer({ connection, ...opts }));
  },

  events: async ({ as, name, opts }) => {
    const events = new bullmq.QueueEvents(name, { connection, lastEventId: '0', ...opts });
    things.set(as, relay(as, events));
    await events.waitUntilReady();
  },

  worker: async ({ as, name, opts, who }) => {
    const prefix = opts.prefix ?? 'bull';
    const run = async (job, token) =>
      runSteps(bullmq, await queueOf(prefix, name), job, token, who);
    const worker = new bullmq.Worker(name, run, { connection, autorun: false, ...opts });
    things.set(as, relay(as, worker));
    await worker.waitUntilReady();
    worker.run().catch(() => {});
  },

  // A worker that only moves when it is told to.
  hand: async ({ as, name, opts }) => {
    const worker = new bullmq.Worker(name, null, { connection, autorun: false, ...opts });
    worker.on('error', () => {});
    things.set(as, worker);
    await worker.waitUntilReady();
  },

  take: async ({ on, token }) => {
    const job = await thing(on).getNextJob(token, { block: false });
    if (job) heldJobs.set(`${on}/${job.id}`, job);
    return plain(job);
  },

  // A method of a job: of one that `take` gave, or else of one that is looked up.
  job: async ({ on, jobId, method, args }) => {
    const held = heldJobs.get(`${on}/${jobId}`);
    const job = held ?? (await bullmq.Job.fromId(thing(on), jobId));
    if (!job) throw new Error(`no such job: ${jobId}`);
    return plain(await job[method](...args.map(arg)));
  },

  call: async ({ on, method, args }) => plain(await thing(on)[method](...args.map(arg))),

  receiver: async ({ as, who }) => {
    const receiver = await startReceiver(bullmq, queueOf, who);
    things.set(as, receiver);
    return receiver.url;
  },

  deliveries: ({ on }) => thing(on).deliveries,

  board: ({ queues }) => showBoard(modules, queues.map(thing)),

  close: async ({ on, args }) => {
    const closed = thing(on);
    things.delete(on);
    await closed.close(...args);
  },
};

createInterface({ input: process.stdin }).on('line', async (line) => {
  const { id, op, ...request } = JSON.parse(line);
  try {
    say({ id, value: (await ops[op](request)) ?? null });
  } catch (error) {
    const { name, message, code } = error;
    say({ id, error: { name, message, code: code ?? null } });
  }
}).on('close', () => process.exit(0));
process.on('unhandledRejection', (error) => console.error('unhandled', error));
