-- The memory of Redis that was last compared with the record, by prefix.
--
-- Redis may come back emptied, or without its newest writes. Whoever notices gives that memory a
-- name, and jobs are claimed from it only when it stands here: when every open job of the record is
-- in it again, and nothing that is over waits there to be run a second time.
CREATE TABLE bullwark.epochs (
  prefix      text PRIMARY KEY,
  epoch       text NOT NULL,
  compared_at timestamptz NOT NULL DEFAULT now()
);
