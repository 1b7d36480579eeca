-- Makes every SCHEDULED delivery due now, because pauses between attempts would outlast a run. Parked deliveries stay
-- parked.
-- $1 now, $2 the ready_at of parked deliveries.
update deliveries set ready_at = $1 where status = 'SCHEDULED' and ready_at > $1 and ready_at < $2
