-- mirror::change_many: rows follow what BullMQ clients did in Redis. `webhooks_hear.sql` comes behind
-- it.
WITH input AS (
  SELECT * FROM unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::int[], $6::int[],
    $7::text[], $8::text[], $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[],
    $14::text[], $15::text[])
    AS u (id, was_status, was_attempt, status, attempt, attempts, result, error, stack, worker_id,
      started_ms, due_ms, ended_ms, progress, note)
), locked AS (
  -- In the order of ids, as every statement on several jobs: no two can deadlock.
  SELECT j.id, j.attempts AS was_attempts FROM input u JOIN jobs j ON j.id = u.id
  ORDER BY j.id FOR NO KEY UPDATE OF j
), changed AS (
  UPDATE jobs j SET
    status = u.status,
    attempt = greatest(j.attempt, u.attempt),
    attempts = least(greatest(u.attempts, 0), j.max_attempts),
    result = CASE WHEN u.status = 'completed' THEN u.result::jsonb
                  WHEN u.was_status = 'completed' THEN NULL ELSE j.result END,
    error_message = CASE WHEN u.status = 'completed' THEN NULL
                         WHEN u.status = 'pending' AND u.was_status = 'dead_letter' THEN NULL
                         ELSE coalesce(u.error, j.error_message) END,
    error_stack = coalesce(u.stack, j.error_stack),
    worker_id = coalesce(u.worker_id, j.worker_id),
    -- A foreign worker sends no heartbeat: that is how its run is known.
    worker_heartbeat_at = CASE WHEN u.status = 'processing' THEN NULL
                               ELSE j.worker_heartbeat_at END,
    started_at = coalesce(bullwark.at_ms(u.started_ms), j.started_at),
    lease_losses = CASE WHEN u.status IN ('pending', 'processing') THEN j.lease_losses ELSE 0 END,
    completed_at = CASE WHEN u.status IN ('completed', 'cancelled')
                        THEN coalesce(bullwark.at_ms(u.ended_ms), now()) END,
    failed_at = CASE WHEN u.status = 'failed' AND u.was_status = 'failed'
                       AND u.attempts <= j.attempts THEN j.failed_at
                     WHEN u.status IN ('failed', 'dead_letter')
                     THEN coalesce(bullwark.at_ms(u.ended_ms), now())
                     WHEN u.was_status IN ('completed', 'dead_letter', 'cancelled') THEN NULL
                     ELSE j.failed_at END,
    next_retry_at = CASE WHEN u.status = 'failed'
                         THEN coalesce(bullwark.at_ms(u.due_ms), now()) END,
    scheduled_for = CASE WHEN u.status = 'pending' THEN bullwark.at_ms(u.due_ms)
                         ELSE j.scheduled_for END,
    progress = coalesce(u.progress::jsonb, j.progress)
  FROM input u JOIN locked ON locked.id = u.id
  WHERE j.id = u.id AND j.status = u.was_status AND j.attempt = u.was_attempt
    AND j.deleted_at IS NULL
    AND NOT EXISTS (SELECT FROM bullwark.outbox o WHERE o.job_id = j.id)
  RETURNING j.id, j.workspace_id, j.job_type, j.job_queue, j.status, j.attempt, j.attempts,
    j.error_message, j.worker_id, j.started_at, j.next_retry_at, u.was_status,
    locked.was_attempts, u.note,
    extract(epoch FROM coalesce(bullwark.at_ms(u.ended_ms), now()) - j.started_at)::float8 * 1000
      AS run_ms
), ended AS (
  SELECT id, workspace_id, job_type, attempt, attempts, status FROM changed
  -- A job that failed again between two looks has failed twice.
  WHERE (status <> was_status OR (status = 'failed' AND attempts > was_attempts))
    AND status NOT IN ('pending', 'processing')
), counted AS (
  -- When it could have started first is not known any more.
  INSERT INTO bullwark.ended_attempts (workspace_id, job_queue, job_type, completed, failed, dead,
    cancelled, run_ms, runs)
  SELECT workspace_id, job_queue, job_type, count(*) FILTER (WHERE status = 'completed'),
    count(*) FILTER (WHERE status = 'failed'), count(*) FILTER (WHERE status = 'dead_letter'),
    count(*) FILTER (WHERE status = 'cancelled'),
    coalesce(sum(greatest(run_ms, 0)) FILTER (WHERE status <> 'cancelled'), 0),
    array_agg(bullwark.latency_bucket(run_ms)) FILTER (
      WHERE status <> 'cancelled' AND run_ms IS NOT NULL)
  FROM changed
  WHERE (status <> was_status OR (status = 'failed' AND attempts > was_attempts))
    AND status NOT IN ('pending', 'processing') AND workspace_id IS NOT NULL
  GROUP BY workspace_id, job_queue, job_type
), history AS (
  INSERT INTO job_failures (job_id, attempt, outcome, error_message, worker_id, started_at,
    next_retry_at)
  SELECT id, attempt, status, error_message, worker_id, started_at, next_retry_at
  FROM changed WHERE status IN ('failed', 'dead_letter')
  ON CONFLICT (job_id, attempt) DO NOTHING
), dead AS (
  INSERT INTO bullwark.dead_letters (job_id, workspace_id, job_type, job_queue, fingerprint)
  SELECT id, workspace_id, job_type, job_queue,
    bullwark.error_fingerprint(job_type, error_message)
  FROM changed WHERE status = 'dead_letter'
  ON CONFLICT (job_id) DO NOTHING
), buried AS (
  DELETE FROM bullwark.dead_letters d USING changed
  WHERE d.job_id = changed.id AND changed.status <> 'dead_letter'
    AND changed.was_status = 'dead_letter'
), open AS (
  -- It may be older than the seal.
  INSERT INTO bullwark.stragglers (job_id, owner_id)
  SELECT id, coalesce(workspace_id, bullwark.nobody()) FROM changed
  WHERE was_status IN ('completed', 'dead_letter', 'cancelled')
    AND status IN ('pending', 'processing', 'failed')
  ON CONFLICT DO NOTHING
), audit AS (
  INSERT INTO job_logs (job_id, log_level, message)
  SELECT id, CASE WHEN note LIKE 'recovered:%' THEN 'warn' ELSE 'info' END, note
  FROM changed WHERE note IS NOT NULL
)
