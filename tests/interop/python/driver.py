"""Drives the Python client for a test: JSON lines on standard input and output.

    python driver.py REDIS_PORT

request  {id, op, ...}      answer  {id, value} | {id, error: {name, message, code}}

It runs the same steps as every other worker of these tests; `node/steps.mjs` lists them. Those
that this client has no call for (`wait`, `rateLimit`) it does not know.
"""

import asyncio
import json
import os
import sys
import time

from bullmq import Queue, Worker
from bullmq.custom_errors import DelayedError, UnrecoverableError, WaitingChildrenError

CONNECTION = {"host": "127.0.0.1", "port": int(sys.argv[1])}
LINE_MAX = 16 * 1024 * 1024

things = {}


async def run_steps(job, token, who):
    is_first = job.attemptsStarted == 1
    result = {"by": who, "attempt": job.attemptsMade + 1}
    for step in job.data.get("steps", []):
        if "progress" in step:
            await job.updateProgress(step["progress"])
        elif "log" in step:
            await job.log(step["log"])
        elif "data" in step:
            await job.updateData({**step["data"], "steps": job.data["steps"]})
        elif "sleep" in step:
            await asyncio.sleep(step["sleep"] / 1000)
        elif "fail" in step:
            if job.attemptsStarted <= step.get("times", float("inf")):
                raise RuntimeError(step["fail"])
        elif "fatal" in step:
            raise UnrecoverableError(step["fatal"])
        elif "delay" in step:
            if is_first:
                await job.moveToDelayed(round(time.time() * 1000) + step["delay"], token)
                raise DelayedError()
        elif "children" in step:
            if await job.moveToWaitingChildren(token, {}):
                raise WaitingChildrenError()
            values = await job.getChildrenValues()
            result = {"by": who, "values": list(values.values())}
        elif "return" in step:
            result = step["return"]
        else:
            raise UnrecoverableError(f"this client can not do {step}")
    return result


async def queue(request):
    things[request["as"]] = Queue(request["name"], {"connection": CONNECTION, **request["opts"]})


async def worker(request):
    async def process(job, token):
        return await run_steps(job, token, request["who"])

    opts = {"connection": CONNECTION, **request["opts"]}
    things[request["as"]] = Worker(request["name"], process, opts)


async def add(request):
    job = await things[request["on"]].add(request["name"], request["data"], request["opts"])
    return job.id


async def add_bulk(request):
    jobs = await things[request["on"]].addBulk(request["jobs"])
    return [job.id for job in jobs]


async def close(request):
    thing = things.pop(request["on"])
    await (thing.close(request["force"]) if isinstance(thing, Worker) else thing.close())


OPS = {"queue": queue, "worker": worker, "add": add, "addBulk": add_bulk, "close": close}


def say(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def answer(request):
    try:
        say({"id": request["id"], "value": await OPS[request["op"]](request)})
    except Exception as error:  # the test decides what an error means
        name, message = type(error).__name__, str(error)
        say({"id": request["id"], "error": {"name": name, "message": message, "code": None}})


async def main():
    reader = asyncio.StreamReader(limit=LINE_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    running = set()
    while line := await reader.readline():
        task = loop.create_task(answer(json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)
    os._exit(0)  # clients that a test left open would complain about the closed loop


if __name__ == "__main__":
    asyncio.run(main())
