, alike AS (
  -- `ended`: id, workspace_id, job_type, attempt, attempts, status. Hundreds end in one commit and
  -- few are different: webhooks are looked at once for all that are alike.
  SELECT workspace_id, job_type::text AS job_type, 'job.' || status AS event, array_agg(id) AS ids,
    array_agg(attempt) AS starts, array_agg(attempts) AS failures
  FROM ended
  WHERE workspace_id IS NOT NULL AND job_type <> 'deliver_webhook'
    -- Without any active webhook that is one look per statement.
    AND EXISTS (SELECT FROM webhooks WHERE is_active)
  GROUP BY workspace_id, job_type, status
), heard AS (
  -- What webhooks want to hear of it. One look by index per group; OFFSET keeps it from becoming a
  -- join whose cost depends on statistics.
  INSERT INTO bullwark.webhook_events (webhook_id, event, job_ids, starts, failures)
  -- All three in whatever order the rows come in, which is one for all.
  SELECT w.id, a.event, array_agg(u.id), array_agg(u.start), array_agg(u.failures)
  FROM alike a CROSS JOIN LATERAL (
    SELECT w.id FROM webhooks w
    WHERE w.workspace_id = a.workspace_id AND w.is_active AND a.event = ANY (w.events)
      AND (w.job_types IS NULL OR a.job_type = ANY (w.job_types))
    OFFSET 0) w
  CROSS JOIN LATERAL unnest(a.ids, a.starts, a.failures) AS u (id, start, failures)
  GROUP BY w.id, a.event
)
