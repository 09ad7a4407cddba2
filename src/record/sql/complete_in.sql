-- settle::complete_in: one attempt, inside its handler's transaction. That may have begun long ago,
-- and `now()` with it. `webhooks_hear.sql` comes behind it.
WITH settled AS (
  UPDATE jobs
  SET status = 'completed', attempts = $3, result = $4::jsonb, error_message = NULL,
    started_at = $5, completed_at = clock_timestamp(), next_retry_at = NULL
  WHERE id = $1 AND attempt = $2 AND status = 'processing' AND worker_id = $6
  RETURNING id, workspace_id, job_queue, job_type, attempt, attempts, completed_at,
    extract(epoch FROM completed_at - started_at)::float8 * 1000 AS run_ms,
    CASE WHEN attempt = 1 AND wire #>> '{children,0}' IS NULL THEN
      extract(epoch FROM started_at - coalesce(scheduled_for, created_at))::float8 * 1000
    END AS wait_ms
), ended AS (
  SELECT id, workspace_id, job_type, attempt, attempts, 'completed' AS status FROM settled
), counted AS (
  INSERT INTO bullwark.ended_attempts (ended_at, workspace_id, job_queue, job_type, completed,
    run_ms, runs, waits)
  SELECT completed_at, workspace_id, job_queue, job_type, 1, greatest(run_ms, 0),
    ARRAY[bullwark.latency_bucket(run_ms)],
    CASE WHEN wait_ms IS NOT NULL THEN ARRAY[bullwark.latency_bucket(wait_ms)] END
  FROM settled WHERE workspace_id IS NOT NULL
)
