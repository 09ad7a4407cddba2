-- Whose word counts for a quota: limits that were changed bring those forward who wait, and a user
-- who asks in SQL does not change the limits of a key that limiters use.
SET LOCAL search_path = public;

ALTER TABLE rate_limits
  -- Limits were changed: from then on all limiters know them, and those who wait are to be told.
  ADD COLUMN turns_due timestamptz,
  -- The numbers that SQL counts by were named by a user, and by nobody who may set limits.
  ADD COLUMN sql_by_user boolean NOT NULL DEFAULT false;
CREATE INDEX rate_limits_turns ON rate_limits (turns_due) WHERE turns_due IS NOT NULL;

-- As before, and whoever calls for all is not bound by what a user named.
CREATE OR REPLACE FUNCTION bullwark.know_quota(
  of_key text, of_workspace uuid, of_epoch text, shortest_max int, shortest interval,
  of_usual jsonb,
  OUT own_limits jsonb, OUT said jsonb, OUT closed_ms bigint, OUT idle_ms bigint,
  OUT is_intact boolean, OUT is_joined boolean)
LANGUAGE plpgsql AS $$
DECLARE
  kept rate_limits;
  moment timestamptz;
BEGIN
  LOOP
    SELECT * INTO kept FROM rate_limits r WHERE r.key = of_key;
    EXIT WHEN FOUND;
    INSERT INTO rate_limits (key, workspace_id, max_requests, window_duration, epoch)
    VALUES (of_key, of_workspace, shortest_max, shortest, of_epoch)
    ON CONFLICT ON CONSTRAINT rate_limits_key DO NOTHING;
  END LOOP;
  moment := clock_timestamp();
  -- Most looks find it noted already, and write nothing.
  IF kept.active_until IS NULL OR kept.active_until < moment + interval '45 seconds'
     OR kept.sql_by_user THEN
    SELECT * INTO kept FROM rate_limits r WHERE r.key = of_key FOR NO KEY UPDATE;
    moment := clock_timestamp();
    UPDATE rate_limits r SET active_until = moment + interval '90 seconds',
      last_request_at = moment, usual = of_usual,
      -- What a user named does not bind whoever calls for all: SQL counts by the limit of the
      -- service from now on, or on its own where that has none.
      max_requests = CASE WHEN r.sql_by_user THEN shortest_max ELSE r.max_requests END,
      window_duration = CASE WHEN r.sql_by_user THEN shortest ELSE r.window_duration END,
      sql_until = CASE WHEN NOT r.sql_by_user THEN r.sql_until WHEN shortest_max > 0
        THEN least(r.sql_until, moment + greatest(shortest * 2, interval '10 minutes')) END,
      sql_by_user = false,
      -- Nothing short can be spent after so long: this memory knows as much as any.
      epoch = CASE WHEN kept.active_until IS NULL
                     OR kept.active_until < moment - interval '150 seconds'
                   THEN of_epoch ELSE r.epoch END
    WHERE r.key = of_key
    RETURNING r.sql_until INTO kept.sql_until;
  END IF;
  own_limits := coalesce(kept.limits, (SELECT r.limits FROM rate_limits r
    WHERE r.key = split_part(of_key, ':', 1) || ':' || split_part(of_key, ':', 2)));
  said := kept.learned;
  closed_ms := greatest(ceil(extract(epoch FROM kept.closed_until - moment) * 1000), 0);
  idle_ms := CASE WHEN kept.active_until IS NULL THEN 1e15
    ELSE greatest(floor(extract(epoch FROM moment - kept.active_until) * 1000), 0) END;
  is_intact := coalesce(kept.epoch = of_epoch, false);
  -- A limiter counts in the record a little longer than SQL looks for it.
  is_joined := coalesce(kept.sql_until > moment - interval '60 seconds', false);
END
$$;

-- As before, and a user changes numbers of its own keys only.
CREATE OR REPLACE FUNCTION check_rate_limit(
  p_key varchar(255),
  p_max_requests int,
  p_window_duration interval DEFAULT '1 minute'
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  kept rate_limits;
  moment timestamptz;
  whose uuid;
  is_user boolean := auth.uid() IS NOT NULL OR current_setting('role', true) = 'authenticated';
  -- Whether this call is bound by numbers that it may not change, and whether limiters are by it.
  is_bound boolean;
  binds boolean;
  most int := p_max_requests;
  lasts interval := p_window_duration;
BEGIN
  IF p_key IS NULL OR p_max_requests IS NULL OR p_max_requests < 0
     OR p_window_duration IS NULL OR p_window_duration <= interval '0'
     OR p_window_duration > interval '31 days' THEN
    RAISE EXCEPTION 'a key, a number of requests from 0 and a window of at most 31 days are needed'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  BEGIN
    whose := split_part(p_key, ':', 2)::uuid;
  EXCEPTION WHEN invalid_text_representation THEN
    whose := NULL;
  END;
  -- `session_user` may be anything behind a pooler: what counts is for whom this is asked.
  IF is_user AND NOT EXISTS (SELECT FROM workspace_members m
       WHERE m.user_id = auth.uid() AND m.workspace_id = whose) THEN
    RAISE EXCEPTION 'the key "%" is not of a workspace of yours', p_key
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  LOOP
    SELECT * INTO kept FROM rate_limits r WHERE r.key = p_key FOR UPDATE;
    EXIT WHEN FOUND;
    INSERT INTO rate_limits (key, workspace_id, max_requests, window_duration, sql_by_user)
    VALUES (p_key, (SELECT w.id FROM workspaces w WHERE w.id = whose), p_max_requests,
      p_window_duration, is_user)
    ON CONFLICT ON CONSTRAINT rate_limits_key DO NOTHING;
  END LOOP;
  moment := clock_timestamp();
  -- A key that limiters use, or whose limit somebody else named, keeps its numbers: a user can ask
  -- for less, and that is its own answer only. Where they have no limit to share, both go on alone.
  is_bound := is_user AND NOT kept.sql_by_user;
  binds := NOT is_bound OR kept.max_requests > 0 OR coalesce(kept.sql_until > moment, false);
  IF is_bound AND binds THEN
    most := least(p_max_requests, kept.max_requests);
    lasts := kept.window_duration;
  END IF;
  IF binds AND (kept.sql_until IS NULL OR kept.sql_until < moment) THEN
    -- Limiters that are at work may not know of SQL yet, and what they gave away is not counted
    -- here: it waits until they do, and that has passed. Those that come later look first.
    kept.sql_from := moment + CASE WHEN kept.active_until > moment - lasts
      THEN lasts + interval '30 seconds' ELSE interval '0' END;
  END IF;
  IF binds THEN
    kept.sql_until := moment + greatest(lasts * 2, interval '10 minutes');
  END IF;
  IF NOT is_bound THEN
    kept.max_requests := p_max_requests;
    kept.window_duration := p_window_duration;
    kept.sql_by_user := is_user;
  END IF;
  IF moment - kept.window_start >= lasts THEN
    kept.window_start := moment;
    kept.requests := 0;
  END IF;
  IF binds AND moment < kept.sql_from OR kept.requests >= most THEN
    UPDATE rate_limits r SET max_requests = kept.max_requests,
      window_duration = kept.window_duration, sql_from = kept.sql_from,
      sql_until = kept.sql_until, sql_by_user = kept.sql_by_user
    WHERE r.key = p_key;
    RETURN false;
  END IF;
  UPDATE rate_limits r SET requests = kept.requests + 1, window_start = kept.window_start,
    max_requests = kept.max_requests, window_duration = kept.window_duration,
    last_request_at = moment, sql_from = kept.sql_from, sql_until = kept.sql_until,
    sql_by_user = kept.sql_by_user
  WHERE r.key = p_key;
  RETURN true;
END
$$;
