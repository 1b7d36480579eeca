-- The default partitions are nets: a row in one means that no partition was made ahead for it.
select message_id as "message_id!", 0::smallint as "no!", 'in messages_default' as "found!" from messages_default
union all
select message_id, no, 'in deliveries_default' from deliveries_default
