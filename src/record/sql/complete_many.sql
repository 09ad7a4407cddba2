-- settle::complete_many: the usual batch, everything completed. `webhooks_hear.sql` comes behind it.
WITH settled AS (
  UPDATE jobs j
  SET status = 'completed', attempt = u.attempt, attempts = u.attempts,
    result = u.result::jsonb, error_message = NULL, started_at = u.started_at,
    completed_at = now(), next_retry_at = NULL, worker_id = u.worker_id
  FROM unnest($1::uuid[], $2::int[], $3::int[], $4::text[], $5::timestamptz[], $6::text[])
    AS u (id, attempt, attempts, result, started_at, worker_id)
  WHERE j.id = u.id AND j.status IN ('pending', 'processing', 'failed')
    AND (j.attempt < u.attempt OR (j.attempt = u.attempt AND j.status = 'processing'
      AND j.worker_id = u.worker_id))
  RETURNING j.id, j.workspace_id, j.job_queue, j.job_type, j.attempt, j.attempts,
    extract(epoch FROM j.completed_at - j.started_at)::float8 * 1000 AS run_ms,
    -- The first start's. A parent waits for its children, which says nothing of the queue.
    CASE WHEN j.attempt = 1 AND j.wire #>> '{children,0}' IS NULL THEN
      extract(epoch FROM j.started_at - coalesce(j.scheduled_for, j.created_at))::float8 * 1000
    END AS wait_ms
), ended AS (
  SELECT id, workspace_id, job_type, attempt, attempts, 'completed' AS status FROM settled
), counted AS (
  INSERT INTO bullwark.ended_attempts (workspace_id, job_queue, job_type, completed, run_ms, runs,
    waits)
  SELECT workspace_id, job_queue, job_type, count(*), sum(greatest(run_ms, 0)),
    array_agg(bullwark.latency_bucket(run_ms)),
    array_agg(bullwark.latency_bucket(wait_ms)) FILTER (WHERE wait_ms IS NOT NULL)
  FROM settled WHERE workspace_id IS NOT NULL GROUP BY workspace_id, job_queue, job_type
)
