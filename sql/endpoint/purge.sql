-- Forgets endpoints that were deleted before $1 and for which nothing is parked any more.
delete from endpoints where status = 'DELETED' and updated_at < $1 and resumed_at is null
