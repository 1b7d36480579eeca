-- What became of each partner's deliveries, by day and type. Outcomes are appended as small changes in the commit that
-- writes them, so that no row is one that everybody updates; a roll-up adds them to the days. A reader sums both.

create table stat_deltas (
  partner_id bigint not null,
  -- The delivery's settled_at: whose day that is, the partner's time zone says.
  counted_at timestamptz not null,
  lane smallint not null,
  total integer not null,
  success integer not null,
  failed integer not null
) with (
  -- Every row is soon deleted: vacuumed by the thousand, whatever the size, and at full speed. Its pages are filled again,
  -- and cutting them off would lock out those who settle.
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
  autovacuum_vacuum_insert_threshold = -1, vacuum_truncate = false
);

create table partner_daily_stats (
  partner_id bigint not null,
  stat_date date not null,
  message_type text not null,
  total bigint not null,
  success bigint not null,
  failed bigint not null,
  -- How much of it was of deliveries that retention has dropped: the rest can be counted again.
  gone_total bigint not null default 0,
  gone_success bigint not null default 0,
  gone_failed bigint not null default 0,
  constraint uk_stat_partner_date_type unique (partner_id, stat_date, message_type)
  -- Today's few rows are written again and again, each time on the same page.
) with (fillfactor = 50);

create index idx_stat_partner_id on partner_daily_stats (partner_id);
create index idx_stat_date on partner_daily_stats (stat_date);

-- A time zone that the server does not know would stop the roll-up for everybody.
alter table partners
  add constraint ck_partner_time_zone check (timestamptz '2000-01-01 00:00:00+00' at time zone time_zone is not null);

-- What ended before there were statistics. Workers of an earlier version, which count nothing, are stopped before this.
insert into partner_daily_stats (partner_id, stat_date, message_type, total, success, failed)
select d.partner_id, (d.settled_at at time zone p.time_zone)::date,
  ('{EMAIL,SLACK,SMS,LMS,MMS,KAKAO_ALIMTALK,KAKAO_BRAND_MESSAGE,NAVER_TALK,RCS,PUSH,INAPP,WEBHOOK}'::text[])[d.lane / 6 + 1],
  count(*), count(*) filter (where d.status in ('SENT', 'DELIVERED')),
  count(*) filter (where d.status in ('FAILED', 'EXPIRED'))
from deliveries d
join partners p using (partner_id)
where d.status in ('SENT', 'DELIVERED', 'FAILED', 'EXPIRED', 'UNDETERMINED')
group by 1, 2, 3;
