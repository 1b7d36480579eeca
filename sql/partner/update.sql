-- Updates the settings of a partner that may change.
-- $1 partner_id, $2 name, $3 status, $4 rate_limit_tps, $5 lookup_days, $6 retention_days, $7 region, $8 channels, $9
-- may_schedule, $10 may_cancel, $11 encrypt_content, $12 may_receive_content, $13 sign_up.
update partners
set name = $2, status = ($3::text)::partner_status, rate_limit_tps = $4, lookup_days = $5, retention_days = $6,
  region = $7, channels = $8, may_schedule = $9, may_cancel = $10, encrypt_content = $11, may_receive_content = $12,
  sign_up = $13
where partner_id = $1
