-- Erases contents, titles, metadata, recipients and providers' answers of settled messages. That they were sent, when,
-- and with what outcome stays, and so do the SHA-256 digests of receipts' event keys. The receipts are locked by the
-- caller.
-- $1 shard[], $2 message_id[], $3 and $4 the smallest and largest of those ids (partition pruning).
with k as materialized (select * from unnest($1::smallint[], $2::bigint[]) as k(shard, message_id)),
messages as (
  update messages m
  set detail = jsonb_build_object('erased', true, 'contents', (
    select coalesce(jsonb_agg('{"body": ""}'::jsonb), '[]'::jsonb)
    from generate_series(0, (
      select max(d.content) from deliveries d where d.shard = m.shard and d.message_id = m.message_id
    )) as n))
  from k
  where m.shard = k.shard and m.message_id = k.message_id and m.message_id between $3 and $4
  returning m.message_id
),
deliveries as (
  update deliveries d set recipient = 'erased', written = null, sent_ref = null
  from k
  where d.shard = k.shard and d.message_id = k.message_id and d.message_id between $3 and $4
),
attempts as (
  update attempts a set detail = null, provider_ref = null, receipt_code = null
  from k
  where a.shard = k.shard and a.message_id = k.message_id and a.message_id between $3 and $4
),
refs as (
  delete from provider_refs p
  using k
  where p.shard = k.shard and p.message_id = k.message_id
),
receipts as (
  update receipts r set detail = null, provider_ref = null, code = null, event_key = case
    when r.event_key ~ '^[0-9a-f]{64}$' then r.event_key
    else encode(sha256(convert_to(r.event_key, 'UTF8')), 'hex') end
  from k
  where r.shard = k.shard and r.message_id = k.message_id
)
select count(*) as "erased!" from messages
