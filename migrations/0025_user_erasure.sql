-- An erased user's messages are erased after the user: until then its row holds the names by which deliveries address
-- it.
alter table users add column erase_names text[];
create index idx_user_to_erase on users (user_id) where erase_names is not null;
