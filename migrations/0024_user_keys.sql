-- Keys by which each search has one index to go by. The tables came with the two migrations before, so they are small
-- wherever this runs; programs of the version before go on working.

-- An item is found by its delivery, of which there is one: the key needs no user. Rows of a batch are then inserted beside
-- each other instead of at a place for each user, and a statement that looks for one item cannot be planned as a search
-- through all items of its user.
alter table inbox_items drop constraint pk_inbox_items;
alter table inbox_items add constraint pk_inbox_items primary key (shard, message_id, no);

-- Users are found by a name or a code that their partner knows. Until the table is analysed, a condition on shard and
-- partner seems to leave one row, so any index that begins with these two is as good: a search by the partner's own id
-- went through all users of the partner, by the index of names. Each of the others begins with a column of its own.
alter table users drop constraint uk_user_name;
alter table users drop constraint uk_user_code;
drop index idx_user_partner;
create unique index uk_user_name on users (username_key, shard, partner_id) where username_key is not null;
create unique index uk_user_code on users (user_code, shard, partner_id);
create index idx_user_partner on users (partner_id, user_id);
