-- What waits for its time has waited long enough: pauses between attempts would outlast a run. What is parked waits for
-- no time. $1 now, $2 where deliveries are parked.
update deliveries set ready_at = $1 where status = 'SCHEDULED' and ready_at > $1 and ready_at < $2
