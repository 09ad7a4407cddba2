-- Plans and times of the record's queries, for record_figures.sh: each in the words of its function
-- in `src/record`, with the settings of the connections that run it. Each is run twice; the second
-- run, with warm caches, is shown.

SET jit = off;

CREATE FUNCTION pg_temp.show(title text, query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE 'EXPLAIN (ANALYZE, BUFFERS) ' || query;
  RETURN NEXT '';
  RETURN NEXT '-- ' || title;
  RETURN QUERY EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, SUMMARY ON) ' || query;
END
$$;

-- For statements that change what they look at: shown as first run, then rolled back.
CREATE FUNCTION pg_temp.show_once(title text, query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
  RETURN NEXT '';
  RETURN NEXT '-- ' || title;
  RETURN QUERY EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, SUMMARY ON) ' || query;
END
$$;

-- What the specification's eight indexes were for.

SELECT pg_temp.show('1 workspace, newest first: the large one', $$
  SELECT * FROM jobs WHERE workspace_id = figures_workspace(0) ORDER BY id DESC LIMIT 50 $$);
SELECT pg_temp.show('1 workspace, newest first: page after page, deep in the past', $$
  SELECT * FROM jobs WHERE workspace_id = figures_workspace(42) AND id < figures_id(20000)
  ORDER BY id DESC LIMIT 50 $$);

SELECT pg_temp.show('2 status: open jobs of everybody, a page (record::open::page)', $$
  (SELECT j.id, coalesce(j.redis_id, j.id::text) AS wire_id, j.job_queue, j.status, j.attempt
   FROM bullwark.stragglers s JOIN jobs j ON j.id = s.job_id
   WHERE s.job_id > figures_id(0) AND j.status IN ('pending', 'processing', 'failed')
   ORDER BY s.job_id LIMIT 5000)
  UNION
  (SELECT id, coalesce(redis_id, id::text) AS wire_id, job_queue, status, attempt FROM jobs
   WHERE id > greatest(figures_id(0),
       (SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed'))
     AND status IN ('pending', 'processing', 'failed')
   ORDER BY id LIMIT 5000)
  ORDER BY id LIMIT 5000 $$);
SELECT pg_temp.show('2 status: pending jobs of a small workspace (record::jobs::list_page)', $$
  SELECT * FROM (
    (SELECT jobs.* FROM jobs
     WHERE id > (SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed') AND workspace_id = figures_workspace(42) AND status = 'pending'
     ORDER BY id DESC LIMIT 50)
    UNION ALL
    (SELECT jobs.* FROM jobs JOIN bullwark.stragglers s ON s.job_id = id
     WHERE s.job_id <= (SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed')
       AND workspace_id = figures_workspace(42) AND status = 'pending'
     ORDER BY s.job_id DESC LIMIT 50)) open
  ORDER BY id DESC LIMIT 50 $$);
SELECT pg_temp.show('2 status: processing jobs, all workspaces, more than there are', $$
  SELECT * FROM (
    (SELECT jobs.* FROM jobs
     WHERE id > (SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed') AND status = 'processing'
     ORDER BY id DESC LIMIT 2000)
    UNION ALL
    (SELECT jobs.* FROM jobs JOIN bullwark.stragglers s ON s.job_id = id
     WHERE s.job_id <= (SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed')
       AND status = 'processing'
     ORDER BY s.job_id DESC LIMIT 2000)) open
  ORDER BY id DESC LIMIT 2000 $$);
SELECT pg_temp.show('2 status: dead letters of the large workspace', $$
  SELECT * FROM jobs WHERE workspace_id = figures_workspace(0) AND status = 'dead_letter'
    AND id IN (SELECT job_id FROM bullwark.dead_letters)
  ORDER BY id DESC LIMIT 50 $$);
SELECT pg_temp.show('2 status: cancelled jobs of a small workspace, which has few', $$
  SELECT * FROM jobs WHERE workspace_id = figures_workspace(42) AND status = 'cancelled'
  ORDER BY id DESC LIMIT 50 $$);
SELECT pg_temp.show('2 status: cancelled jobs of the large workspace, which has none', $$
  SELECT * FROM jobs WHERE workspace_id = figures_workspace(0) AND status = 'cancelled'
  ORDER BY id DESC LIMIT 50 $$);

SELECT pg_temp.show('6 type: a common one, all workspaces', $$
  SELECT * FROM jobs WHERE job_type = 'import_csv' ORDER BY id DESC LIMIT 50 $$);
SELECT pg_temp.show('6 type: one in ten thousand, all workspaces', $$
  SELECT * FROM jobs WHERE job_type = 'generate_report' ORDER BY id DESC LIMIT 50 $$);
SELECT pg_temp.show('6 type: one that the large workspace never had', $$
  SELECT * FROM jobs WHERE workspace_id = figures_workspace(0) AND job_type = 'nothing'
  ORDER BY id DESC LIMIT 50 $$);

SELECT pg_temp.show('7 created_by: of a member, in the large workspace', $$
  SELECT * FROM jobs WHERE workspace_id = figures_workspace(0)
    AND created_by = figures_workspace(7)
  ORDER BY id DESC LIMIT 50 $$);
SELECT pg_temp.show('7 created_by: of somebody who never made one, all workspaces', $$
  SELECT * FROM jobs WHERE created_by = '00000000-0000-7000-8000-000000000000'
  ORDER BY id DESC LIMIT 50 $$);

BEGIN;
SELECT pg_temp.show('8 stale check (record::open::reset_silent)', $$
  SELECT j.id, j.attempt, j.worker_id, j.started_at FROM jobs j
  WHERE j.id IN (
      SELECT job_id FROM bullwark.stragglers
      UNION ALL
      SELECT id FROM jobs
      WHERE id > (SELECT job_id FROM bullwark.watermarks WHERE name = 'sealed')
        AND status = 'processing')
    AND j.status = 'processing' AND j.worker_heartbeat_at < now() - interval '5 minutes'
  ORDER BY j.id LIMIT 500 FOR NO KEY UPDATE SKIP LOCKED $$);
ROLLBACK;

-- The hot statements, with the planner settings of the writers.

SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_seqscan = off;

CREATE TEMPORARY TABLE fresh AS
  SELECT array_agg(figures_id(1500000 + n) ORDER BY n) AS ids FROM generate_series(1, 500) n;
CREATE TEMPORARY TABLE open AS
  SELECT array_agg(id ORDER BY id) AS ids
  FROM (SELECT id FROM jobs WHERE status = 'pending' ORDER BY id DESC LIMIT 500) newest;

BEGIN;
SELECT pg_temp.show('hot: insert 500 (record::enqueue::insert_many)', $$
  WITH inserted AS (
    INSERT INTO jobs (id, job_type, job_queue, payload, priority, max_attempts,
      retry_delay_seconds)
    SELECT bullwark.uuid_v7(), 'noop', 'default', '{"a": 1}', 0, 5, 60
    FROM unnest((SELECT ids FROM fresh)) AS u (id)
    RETURNING id
  ), late AS (
    INSERT INTO bullwark.stragglers
    SELECT id FROM inserted
    WHERE id < (SELECT (lpad(to_hex(floor(extract(epoch FROM now()) * 1000)::bigint - 30000),
                          12, '0') || repeat('0', 20))::uuid)
  )
  SELECT now() $$);
ROLLBACK;
BEGIN;
SELECT pg_temp.show_once('hot: complete 500 (record::settle::settle_many)', $$
  UPDATE jobs j
  SET status = 'completed', attempt = 1, attempts = 0, result = '{"ok": true}',
    error_message = NULL, started_at = now(), completed_at = now(), next_retry_at = NULL,
    worker_id = 'host-1-abcdef'
  FROM unnest((SELECT ids FROM open)) AS u (id)
  WHERE j.id = u.id AND j.status IN ('pending', 'processing', 'failed')
    AND (j.attempt < 1 OR (j.attempt = 1 AND j.status = 'processing'
      AND j.worker_id = 'host-1-abcdef'))
  RETURNING j.id $$);
ROLLBACK;
BEGIN;
SELECT pg_temp.show_once('hot: note 500 starts or heartbeats (record::start::mark_running)', $$
  UPDATE jobs j
  SET status = 'processing', attempt = 1, started_at = now(), worker_id = 'host-1-abcdef',
    worker_heartbeat_at = now()
  FROM (
    SELECT u.* FROM unnest((SELECT ids FROM open)) AS u (id)
    JOIN jobs j ON j.id = u.id
    WHERE j.status IN ('pending', 'processing', 'failed') AND j.attempt <= 1
    ORDER BY j.id
    FOR NO KEY UPDATE OF j SKIP LOCKED
  ) s
  WHERE j.id = s.id $$);
ROLLBACK;

RESET enable_hashjoin;
RESET enable_mergejoin;
RESET enable_seqscan;
SELECT pg_temp.show('hot: one step of a pass, 5000 rows (record::open::next_step)', $$
  SELECT id, coalesce(redis_id, id::text) AS wire_id, job_queue, status, attempt FROM jobs
  WHERE id > figures_id(500000) AND id <= figures_id(505000)
    AND status IN ('pending', 'processing', 'failed')
  ORDER BY id $$);
SELECT pg_temp.show('hot: the statuses of 500 jobs (record::jobs::statuses)', $$
  SELECT id, status FROM jobs WHERE id = ANY((SELECT ids FROM open)::uuid[]) $$);
