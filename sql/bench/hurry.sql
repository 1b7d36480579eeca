-- What waits for its time has waited long enough: pauses between attempts would outlast a run. $1 now.
update deliveries set ready_at = $1 where status = 'SCHEDULED' and ready_at > $1
