-- settle::settle_mixed: any mix of outcomes. Also writes the retry history and the dead letters.
-- `webhooks_hear.sql` comes behind it.
WITH settled AS (
  UPDATE jobs j
  SET status = u.status, attempt = u.attempt, attempts = u.attempts,
    result = u.result::jsonb,
    error_message = u.error, error_stack = u.stack, started_at = u.started_at,
    worker_id = u.worker_id, lease_losses = 0,
    completed_at = CASE u.status WHEN 'completed' THEN now() END,
    failed_at = CASE WHEN u.status IN ('failed', 'dead_letter') THEN now()
                     ELSE j.failed_at END,
    next_retry_at = CASE u.status WHEN 'failed'
                         THEN now() + u.delay_ms * interval '1 millisecond' END,
    scheduled_for = CASE WHEN u.status = 'pending' AND u.delay_ms > 0
                         THEN now() + u.delay_ms * interval '1 millisecond'
                         ELSE j.scheduled_for END
  FROM unnest($1::uuid[], $2::int[], $3::int[], $4::text[], $5::text[], $6::text[],
    $7::bigint[], $8::timestamptz[], $9::text[], $10::text[])
    AS u (id, attempt, attempts, status, result, error, delay_ms, started_at, worker_id, stack)
  WHERE j.id = u.id AND j.status IN ('pending', 'processing', 'failed')
    AND (j.attempt < u.attempt OR (j.attempt = u.attempt AND j.status = 'processing'
      AND j.worker_id = u.worker_id))
  RETURNING j.id, j.workspace_id, j.job_type, j.job_queue, j.status, j.attempt, j.attempts,
    j.error_message, j.error_stack, j.worker_id, j.started_at, j.next_retry_at,
    extract(epoch FROM now() - j.started_at)::float8 * 1000 AS run_ms,
    -- The first start's. A parent waits for its children, which says nothing of the queue.
    CASE WHEN j.attempt = 1 AND j.wire #>> '{children,0}' IS NULL THEN
      extract(epoch FROM j.started_at - coalesce(j.scheduled_for, j.created_at))::float8 * 1000
    END AS wait_ms
), history AS (
  INSERT INTO job_failures (job_id, attempt, outcome, error_message, error_stack, worker_id,
    started_at, next_retry_at)
  SELECT id, attempt, status, error_message, error_stack, worker_id, started_at, next_retry_at
  FROM settled WHERE status IN ('failed', 'dead_letter')
  ON CONFLICT (job_id, attempt) DO NOTHING
), dead AS (
  INSERT INTO bullwark.dead_letters (job_id, workspace_id, job_type, job_queue, fingerprint)
  SELECT id, workspace_id, job_type, job_queue,
    bullwark.error_fingerprint(job_type, error_message)
  FROM settled WHERE status = 'dead_letter'
  ON CONFLICT (job_id) DO NOTHING
), ended AS (
  SELECT id, workspace_id, job_type, attempt, attempts, status FROM settled
  WHERE status <> 'pending'
), counted AS (
  INSERT INTO bullwark.ended_attempts (workspace_id, job_queue, job_type, completed, failed, dead,
    run_ms, runs, waits)
  SELECT workspace_id, job_queue, job_type, count(*) FILTER (WHERE status = 'completed'),
    count(*) FILTER (WHERE status = 'failed'), count(*) FILTER (WHERE status = 'dead_letter'),
    sum(greatest(run_ms, 0)), array_agg(bullwark.latency_bucket(run_ms)),
    array_agg(bullwark.latency_bucket(wait_ms)) FILTER (WHERE wait_ms IS NOT NULL)
  FROM settled WHERE status <> 'pending' AND workspace_id IS NOT NULL
  GROUP BY workspace_id, job_queue, job_type
)
