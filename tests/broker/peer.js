// The other side of `peer.rs`: BullMQ's own client, one mode per test. Prints a line of JSON for
// each thing that it sees. Its package is found through BULLMQ_DIR.
const [mode, port, prefix, name] = process.argv.slice(2);
const { Queue, QueueEvents, Worker } = require(`${process.env.BULLMQ_DIR}/node_modules/bullmq`);
const connection = { host: "127.0.0.1", port: Number(port) };
const say = (what) => console.log(JSON.stringify(what));
const EVENTS = ["added", "waiting", "delayed", "active", "progress", "completed", "failed",
  "retries-exhausted", "stalled", "removed", "drained", "paused", "resumed", "duplicated"];

async function listen() {
  const events = new QueueEvents(name, { connection, prefix, lastEventId: "0" });
  for (const event of EVENTS) {
    events.on(event, (args) => say({ event, ...args }));
  }
  events.on("error", (error) => say({ error: String(error) }));
  await events.waitUntilReady();
  return events;
}

// Runs what Rust added: `flaky` fails once, `doomed` always.
async function work() {
  await listen();
  const run = async (job) => {
    if (job.name === "doomed" || (job.name === "flaky" && job.attemptsMade === 0)) {
      throw new Error("no luck");
    }
    await job.updateProgress(50);
    return { got: job.data, priority: job.opts.priority ?? 0 };
  };
  const worker = new Worker(name, run, { connection, prefix, concurrency: 2 });
  worker.on("error", (error) => say({ error: String(error) }));
  say({ ready: true });
}

// Adds for Rust and waits for what becomes of it.
async function add() {
  const events = await listen();
  const queue = new Queue(name, { connection, prefix });
  const jobs = [
    await queue.add("plain", { text: "größe/\"quoted\"" }),
    await queue.add("urgent", { n: 1.5 }, { priority: 5, jobId: "custom-1" }),
    await queue.add("later", [1, 2], { delay: 300 }),
    await queue.add("fails", {}, { attempts: 3, backoff: { type: "exponential", delay: 10 } }),
    await queue.add("retried", {}, { attempts: 3, jobId: "retry-1" }),
  ];
  say({ ready: true });
  for (const job of jobs) {
    const end = await job.waitUntilFinished(events, 30000).then(
      (value) => ({ value }), (error) => ({ reason: error.message }));
    const now = await queue.getJob(job.id);
    say({ end, name: job.name, state: await now.getState(), made: now.attemptsMade,
      started: now.attemptsStarted, progress: now.progress, stack: now.stacktrace });
  }
  say({ counts: await queue.getJobCounts(), done: true });
}

({ work, add })[mode]().catch((error) => { say({ error: String(error) }); process.exit(1); });
