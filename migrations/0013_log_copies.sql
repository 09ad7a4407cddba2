-- How much of the log that a job has in Redis was copied into `job_logs`.
--
-- BullMQ's rows have no ids, and a job may keep only its newest ones (`keepLogs`). So the last
-- copied rows are known by their hashes, oldest first. Only jobs whose logs foreign code writes have
-- a row here.
CREATE TABLE bullwark.log_copies (
  job_id uuid PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
  copied bigint NOT NULL DEFAULT 0,
  newest bigint[] NOT NULL DEFAULT '{}'
);
