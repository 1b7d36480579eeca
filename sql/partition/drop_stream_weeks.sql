-- Drops the weeks of stream_events that ended before a day. Returns their names.
-- $1 the day.
select drop_stream_weeks($1) as "dropped!"
