-- Deletes jobs that finished before a time.
-- $1 finished_at before this.
delete from redrives where finished_at < $1
