, heard AS (
  -- What webhooks want to hear of `ended`: id, workspace_id, job_type, attempt, attempts, status.
  -- Without any active webhook that is one look per statement. With some it is one look by index
  -- per job; OFFSET keeps it from becoming a join whose cost depends on statistics.
  INSERT INTO bullwark.webhook_events (webhook_id, event, job_ids, starts, failures)
  -- All three in whatever order the rows come in, which is one for all.
  SELECT w.id, w.event, array_agg(e.id), array_agg(e.attempt), array_agg(e.attempts)
  FROM ended e CROSS JOIN LATERAL (
    SELECT w.id, 'job.' || e.status AS event FROM webhooks w
    WHERE w.workspace_id = e.workspace_id AND w.is_active
      AND 'job.' || e.status = ANY (w.events)
      AND (w.job_types IS NULL OR e.job_type::text = ANY (w.job_types))
    OFFSET 0) w
  WHERE e.workspace_id IS NOT NULL AND e.job_type <> 'deliver_webhook'
    AND EXISTS (SELECT FROM webhooks WHERE is_active)
  GROUP BY w.id, w.event
)
