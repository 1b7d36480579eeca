-- The default partitions are empty: a row there means that its partition was not created ahead.
select message_id as "message_id!", 0::smallint as "no!", 'in messages_default' as "found!" from messages_default
union all
select message_id, no, 'in deliveries_default' from deliveries_default
