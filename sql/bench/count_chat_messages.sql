-- Messages of rooms, and how many different tempIds they have.
-- $1 only messages with this id or a later one.
select count(*) as "n!", count(distinct temp_id) as "temp_ids!" from chat_messages where chat_id >= $1
