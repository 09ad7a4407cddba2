// What a test job does: the steps in its data, one after the other. Every kind of worker in these
// tests reads the same steps, so that one job can run anywhere.
//
//   {progress: v}            report v
//   {log: text}              write a line
//   {data: {...}}            replace the data; `steps` stay
//   {sleep: ms}              take some time
//   {fail: text, times?: n}  fail, only in the first n starts if given
//   {fatal: text}            fail without a retry
//   {delay: ms}              move itself to delayed, at the first start
//   {wait: true}             move itself back to waiting, at the first start
//   {children: true}         wait for its children, then go on; the result has their values
//   {rateLimit: ms}          close the queue's limiter, at the first start
//   {return: v}              end with v; without it the result says who worked

import { setTimeout as sleep } from 'node:timers/promises';

/** Runs a job; `bullmq` is the library that `job` belongs to, `queue` reaches its queue. */
export async function runSteps(bullmq, queue, job, token, who) {
  const isFirst = job.attemptsStarted === 1;
  let result = { by: who, attempt: job.attemptsMade + 1 };
  for (const step of job.data.steps ?? []) {
    if ('progress' in step) await job.updateProgress(step.progress);
    if ('log' in step) await job.log(step.log);
    if ('data' in step) await job.updateData({ ...step.data, steps: job.data.steps });
    if ('sleep' in step) await sleep(step.sleep);
    if ('fail' in step && job.attemptsStarted <= (step.times ?? Infinity)) {
      throw new Error(step.fail);
    }
    if ('fatal' in step) throw new bullmq.UnrecoverableError(step.fatal);
    if ('delay' in step && isFirst) {
      await job.moveToDelayed(Date.now() + step.delay, token);
      throw new bullmq.DelayedError();
    }
    if ('wait' in step && isFirst) {
      await job.moveToWait(token);
      throw new bullmq.WaitingError();
    }
    if ('children' in step) {
      if (await job.moveToWaitingChildren(token)) throw new bullmq.WaitingChildrenError();
      result = {
        by: who,
        values: Object.values(await job.getChildrenValues()),
        ignored: Object.values(await job.getIgnoredChildrenFailures()),
      };
    }
    if ('rateLimit' in step && isFirst) {
      await queue.rateLimit(step.rateLimit);
      throw new bullmq.RateLimitError();
    }
    if ('return' in step) result = step.return;
  }
  return result;
}
