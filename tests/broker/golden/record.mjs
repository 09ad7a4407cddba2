// record: drives a BullMQ package through the histories and prints what it answered and left in
// Redis. `golden.rs` replays the same histories and expects the same.
//
// In a folder with node_modules, against a Redis that holds nothing else:
//   npm install bullmq6@npm:bullmq@6.7.0 bullmq5@npm:bullmq@5.81.5
//   node record.mjs PORT 6 < histories.json > bullmq6.json
//
// A history is a list of steps: `raw` (a command), `add` (jobs, one by one), `add6` (the same, for
// version 6 only), `bulk`, `flow`, `flows`. `@` stands for the prefix of the history, `@other` for
// a second prefix. Ids that BullMQ makes up are named after their job.

import { createRequire } from 'node:module';
import fs from 'node:fs';

const [, , port, version] = process.argv;
const NOW = 1700000000000;
Date.now = () => NOW;
const require = createRequire(`${process.cwd()}/`);
const { Queue, FlowProducer } = require(`bullmq${version}`);
const Redis = require('ioredis');
const connection = { host: '127.0.0.1', port: Number(port) };
const redis = new Redis(connection);

const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g;
const JSON_FIELDS = ['opts', 'parent', 'data', 'pd'];

// The same value with another text or name for each part.
function map(value, text) {
  if (typeof value === 'string') return text(value);
  if (Array.isArray(value)) return value.map(item => map(item, text));
  if (!value || typeof value !== 'object') return value;
  const members = Object.entries(value).map(([key, item]) => [text(key), map(item, text)]);
  return Object.fromEntries(members.sort(([a], [b]) => (a < b ? -1 : 1)));
}

// Members of one score in the order of their names: those that were made up have none.
function inOrder(flat, text) {
  const pairs = [];
  for (let i = 0; i < flat.length; i += 2) pairs.push([flat[i + 1], text(flat[i])]);
  return pairs.sort((a, b) => Number(a[0]) - Number(b[0]) || (a[1] < b[1] ? -1 : 1));
}

async function read(key, text) {
  switch (await redis.type(key)) {
    case 'string': {
      const ttl = await redis.pttl(key);
      const value = await redis.get(key);
      return ttl > 0 ? `${value} ttl<=${Math.ceil(ttl / 10000) * 10}s` : value;
    }
    case 'list': return redis.lrange(key, 0, -1);
    case 'set': return (await redis.smembers(key)).map(text).sort();
    case 'zset': return inOrder(await redis.zrange(key, 0, -1, 'WITHSCORES'), text);
    case 'stream': return (await redis.xrange(key, '-', '+')).map(entry => entry[1]);
    default: {
      const fields = await redis.hgetall(key);
      for (const name of JSON_FIELDS) {
        if (fields[name] !== undefined) fields[name] = JSON.parse(fields[name]);
      }
      return fields;
    }
  }
}

async function leftovers(prefix) {
  const keys = (await redis.keys(`${prefix}*`)).sort();
  const names = {};
  for (const key of keys) {
    const id = key.match(UUID)?.[0];
    if (id && key.endsWith(id)) names[id] = `<${await redis.hget(key, 'name')}>`;
  }
  const text = given => given.replaceAll(prefix, '@').replace(UUID, id => names[id] ?? id);
  const left = {};
  for (const key of keys) left[text(key)] = map(await read(key, text), text);
  return [left, text];
}

const results = [];
for (const history of JSON.parse(fs.readFileSync(0, 'utf8'))) {
  if (history.v6 && version !== '6') continue;
  const prefix = `g${results.length}_`;
  const place = given =>
    given.replaceAll('@', `${prefix}:`).replace(`${prefix}:other`, `${prefix}o`);
  const queue = new Queue('q', { connection, prefix, skipMetasUpdate: true });
  const flows = new FlowProducer({ connection, prefix });
  const answers = [];
  const attempt = async act => {
    try { answers.push(await act()); } catch (e) { answers.push({ error: e.code ?? 'refused' }); }
  };
  const ids = tree => ({ id: tree.job.id, children: (tree.children ?? []).map(ids) });
  for (const step of map(history.steps, place)) {
    const jobs = step.add ?? (version === '6' && step.add6) ?? [];
    if (step.raw) await redis.call(...step.raw);
    for (const job of jobs || []) {
      await attempt(async () => (await queue.add(job.name, job.data, job.opts)).id);
    }
    if (step.bulk) await attempt(async () => (await queue.addBulk(step.bulk)).map(job => job.id));
    if (step.flow) await attempt(async () => ids(await flows.add(step.flow)));
    if (step.flows) await attempt(async () => (await flows.addBulk(step.flows)).map(ids));
  }
  const [left, text] = await leftovers(prefix);
  results.push({ name: history.name, answers: map(answers, text), left });
  await queue.close();
  await flows.close();
}

const line = value => JSON.stringify(value);
const block = ({ name, answers, left }) => {
  const keys = Object.entries(left).map(([key, value]) => `  ${line(key)}: ${line(value)}`);
  return `{"name": ${line(name)}, "answers": ${line(answers)}, "left": {\n${keys.join(',\n')}\n}}`;
};
console.log(`[\n${results.map(block).join(',\n')}\n]`);
redis.disconnect();
