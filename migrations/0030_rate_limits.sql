-- Quotas of services outside: limits, what was learned, and what is spent of long windows.
--
-- Redis counts calls; what must outlive it is here. Units of long windows are set aside here before
-- Redis gives them away, like blocks of ids, so that a Redis that lost its memory goes on from at
-- least what was spent. `check_rate_limit` counts calls of plain SQL in the same row, and a limiter
-- that sees such calls counts its own of that key here, too.
SET LOCAL search_path = public;

CREATE TABLE rate_limits (
  id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  workspace_id    uuid REFERENCES workspaces (id) ON DELETE CASCADE,
  -- "{service}:{workspace_id}" or "{service}:{workspace_id}:{user_id}"
  key             varchar(255) NOT NULL,
  -- the window that SQL counts in
  requests        int NOT NULL DEFAULT 0,
  window_start    timestamptz NOT NULL DEFAULT now(),
  window_duration interval NOT NULL DEFAULT '1 minute',
  max_requests    int NOT NULL,
  last_request_at timestamptz,
  created_at      timestamptz NOT NULL DEFAULT now(),
  -- what an administrator set; none: what the service is known for, as its last caller said
  limits          jsonb,
  usual           jsonb,
  -- what the service said of its own windows
  learned         jsonb NOT NULL DEFAULT '{}',
  closed_until    timestamptz,
  -- limiters may have given units away until then; none ever did: null
  active_until    timestamptz,
  -- the memory of Redis that has begun with what is written here
  epoch           text,
  -- until when limiters look for calls of SQL, and from when on SQL is granted any
  sql_until       timestamptz,
  sql_from        timestamptz,
  CONSTRAINT rate_limits_key UNIQUE (key),
  CONSTRAINT rate_limits_learned CHECK (octet_length(learned::text) <= 16384),
  CONSTRAINT rate_limits_limits CHECK (
    octet_length(limits::text) <= 16384 AND octet_length(usual::text) <= 16384)
) WITH (fillfactor = 50);
CREATE INDEX rate_limits_workspace ON rate_limits (workspace_id, key);

REVOKE ALL ON rate_limits FROM authenticated;
DO $$ BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'anon') THEN
    REVOKE ALL ON rate_limits FROM anon;
  END IF;
END $$;
GRANT ALL ON rate_limits TO service_role;
GRANT SELECT ON rate_limits TO authenticated, bullwark_tenant;
ALTER TABLE rate_limits ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Users can view rate limits in their workspace" ON rate_limits FOR SELECT
  TO authenticated
  USING (workspace_id IN (SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY "A tenant sees its rate limits" ON rate_limits FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());

-- Units set aside in each period (a window's start, or a slot of a sliding one) of a long window.
CREATE TABLE bullwark.quota_periods (
  key       varchar(255) NOT NULL REFERENCES rate_limits (key) ON DELETE CASCADE,
  window_id text NOT NULL,
  periods   bigint[] NOT NULL DEFAULT '{}',
  units     bigint[] NOT NULL DEFAULT '{}',
  PRIMARY KEY (key, window_id)
) WITH (fillfactor = 50);
ALTER TABLE bullwark.quota_periods ENABLE ROW LEVEL SECURITY;
GRANT ALL ON bullwark.quota_periods TO service_role;

-- Notes that a limiter uses the key for the next 90 seconds, and tells what is known of it.
--
-- `idle_ms`: since when no limiter can have given anything away. `is_intact`: this memory of Redis
-- began with what is written here, so what it does not know was not spent.
CREATE FUNCTION bullwark.know_quota(
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
  IF kept.active_until IS NULL OR kept.active_until < moment + interval '45 seconds' THEN
    SELECT * INTO kept FROM rate_limits r WHERE r.key = of_key FOR NO KEY UPDATE;
    moment := clock_timestamp();
    UPDATE rate_limits r SET active_until = moment + interval '90 seconds',
      last_request_at = moment, usual = of_usual,
      -- Nothing short can be spent after so long: this memory knows as much as any.
      epoch = CASE WHEN kept.active_until IS NULL
                     OR kept.active_until < moment - interval '150 seconds'
                   THEN of_epoch ELSE r.epoch END
    WHERE r.key = of_key;
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

-- Sets units of a period aside: as many as wanted, or what is left, or nothing if that is less than
-- needed. Periods before `from_period` do not count any more.
CREATE FUNCTION bullwark.set_quota_aside(
  of_key text, of_window text, period bigint, from_period bigint, max bigint, wanted bigint,
  needed bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
  kept bullwark.quota_periods;
  used bigint;
  granted bigint;
BEGIN
  LOOP
    SELECT * INTO kept FROM bullwark.quota_periods q
    WHERE q.key = of_key AND q.window_id = of_window FOR UPDATE;
    EXIT WHEN FOUND;
    INSERT INTO bullwark.quota_periods (key, window_id) VALUES (of_key, of_window)
    ON CONFLICT DO NOTHING;
  END LOOP;
  SELECT coalesce(array_agg(k.p ORDER BY k.p), '{}'), coalesce(array_agg(k.u ORDER BY k.p), '{}'),
    coalesce(sum(k.u), 0)
  INTO kept.periods, kept.units, used
  FROM (SELECT p, u FROM unnest(kept.periods, kept.units) AS x (p, u) WHERE p >= from_period) k;
  granted := least(wanted, max - used);
  IF granted < needed THEN
    RETURN 0;
  END IF;
  IF period = ANY (kept.periods) THEN
    kept.units[array_position(kept.periods, period)] :=
      kept.units[array_position(kept.periods, period)] + granted;
  ELSE
    kept.periods := kept.periods || period;
    kept.units := kept.units || granted;
  END IF;
  UPDATE bullwark.quota_periods q SET periods = kept.periods, units = kept.units
  WHERE q.key = of_key AND q.window_id = of_window;
  RETURN granted;
END
$$;

-- The same of the window that SQL counts in; `left_ms` is how long it goes on.
CREATE FUNCTION bullwark.set_requests_aside(
  of_key text, wanted int, needed int, OUT granted int, OUT left_ms bigint)
LANGUAGE plpgsql AS $$
DECLARE
  kept rate_limits;
  moment timestamptz;
BEGIN
  SELECT * INTO kept FROM rate_limits r WHERE r.key = of_key FOR UPDATE;
  -- Not the time of the transaction: it may have waited for the row.
  moment := clock_timestamp();
  IF moment - kept.window_start >= kept.window_duration THEN
    kept.window_start := moment;
    kept.requests := 0;
  END IF;
  granted := least(wanted, kept.max_requests - kept.requests);
  IF granted < needed THEN
    granted := 0;
  END IF;
  left_ms := floor(extract(epoch FROM
    kept.window_start + kept.window_duration - moment) * 1000);
  IF granted > 0 THEN
    UPDATE rate_limits r SET requests = kept.requests + granted, window_start = kept.window_start,
      last_request_at = moment
    WHERE r.key = of_key;
  END IF;
END
$$;

-- Counts one request and says whether it may be made, as the specification has it; by one row lock,
-- so that no two callers get the last one.
--
-- Of a key that limiters use, the first call is refused for a window and half a minute: until then
-- they have learned of it and count here, too. Users may ask for keys of their own workspaces.
CREATE FUNCTION check_rate_limit(
  p_key varchar(255),
  p_max_requests int,
  p_window_duration interval DEFAULT '1 minute'
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  kept rate_limits;
  moment timestamptz;
  whose uuid;
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
  IF (auth.uid() IS NOT NULL OR current_setting('role', true) = 'authenticated')
     AND NOT EXISTS (SELECT FROM workspace_members m
       WHERE m.user_id = auth.uid() AND m.workspace_id = whose) THEN
    RAISE EXCEPTION 'the key "%" is not of a workspace of yours', p_key
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  LOOP
    SELECT * INTO kept FROM rate_limits r WHERE r.key = p_key FOR UPDATE;
    EXIT WHEN FOUND;
    INSERT INTO rate_limits (key, workspace_id, max_requests, window_duration)
    VALUES (p_key, (SELECT w.id FROM workspaces w WHERE w.id = whose), p_max_requests,
      p_window_duration)
    ON CONFLICT ON CONSTRAINT rate_limits_key DO NOTHING;
  END LOOP;
  moment := clock_timestamp();
  IF kept.sql_until IS NULL OR kept.sql_until < moment THEN
    -- Limiters that are at work may not know of SQL yet, and what they gave away is not counted
    -- here: it waits until they do, and that has passed. Those that come later look first.
    kept.sql_from := moment + CASE WHEN kept.active_until > moment - p_window_duration
      THEN p_window_duration + interval '30 seconds' ELSE interval '0' END;
  END IF;
  kept.sql_until := moment + greatest(p_window_duration * 2, interval '10 minutes');
  IF moment - kept.window_start >= p_window_duration THEN
    kept.window_start := moment;
    kept.requests := 0;
  END IF;
  IF moment < kept.sql_from OR kept.requests >= p_max_requests THEN
    UPDATE rate_limits r SET max_requests = p_max_requests, window_duration = p_window_duration,
      sql_from = kept.sql_from, sql_until = kept.sql_until
    WHERE r.key = p_key;
    RETURN false;
  END IF;
  UPDATE rate_limits r SET requests = kept.requests + 1, window_start = kept.window_start,
    max_requests = p_max_requests, window_duration = p_window_duration, last_request_at = moment,
    sql_from = kept.sql_from, sql_until = kept.sql_until
  WHERE r.key = p_key;
  RETURN true;
END
$$;
REVOKE EXECUTE ON FUNCTION check_rate_limit(varchar, int, interval) FROM public;
GRANT EXECUTE ON FUNCTION check_rate_limit(varchar, int, interval) TO authenticated, service_role;
REVOKE EXECUTE ON FUNCTION bullwark.know_quota(text, uuid, text, int, interval, jsonb),
  bullwark.set_quota_aside(text, text, bigint, bigint, bigint, bigint, bigint),
  bullwark.set_requests_aside(text, int, int) FROM public;
GRANT EXECUTE ON FUNCTION bullwark.know_quota(text, uuid, text, int, interval, jsonb),
  bullwark.set_quota_aside(text, text, bigint, bigint, bigint, bigint, bigint),
  bullwark.set_requests_aside(text, int, int) TO service_role;
