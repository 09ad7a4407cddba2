-- Lines that are owed to the logs of many jobs: one row says one thing of all of them.
--
-- A rebuild of Redis tells each job that it was put back. Written one by one those lines cost more
-- than everything else of it, above all the foreign key's look at each job, and nothing may be
-- claimed meanwhile. `noted_at` is the time of the lines, however late they are written.
CREATE TABLE bullwark.owed_logs (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  noted_at timestamptz NOT NULL DEFAULT now(),
  message text NOT NULL,
  job_ids uuid[] NOT NULL
);
