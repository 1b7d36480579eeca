-- Whether any suspect may be claimed now.
-- $1 now.
select exists (select from suspects where ready_at <= $1) as "claimable!"
