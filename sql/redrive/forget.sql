-- Forgets jobs that were finished before $1.
delete from redrives where finished_at < $1
