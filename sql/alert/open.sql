-- What is not over.
select cause, opened_at, times, detail from alerts where cleared_at is null order by cause
