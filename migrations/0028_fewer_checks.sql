-- Each execution of a statement that writes deliveries reads the table's check constraints as text and prepares them:
-- these two cost a message that is written alone 9 % of PostgreSQL's work, and a claim or settle of one delivery 11 %.
-- `notihub fsck` checks the same ("lease", and of the records of sends "attempts", "events", "sent" and "told").
-- ck_delivery_send_record also refused writes of programs from before migration 21, which do not know these records:
-- stop such processes before this migration.
alter table deliveries drop constraint ck_delivery_lease;
alter table deliveries drop constraint ck_delivery_send_record;
