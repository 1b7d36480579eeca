-- An item is found by its delivery, of which there is one: the key needs no user. Rows of a batch are then inserted beside
-- each other instead of at a place for each user, and a statement that looks for one item cannot be planned as a search
-- through all items of its user. The table came with the migration before, so it is small wherever this runs; programs of
-- the version before go on working.
alter table inbox_items drop constraint pk_inbox_items;
alter table inbox_items add constraint pk_inbox_items primary key (shard, message_id, no);
