-- Deletes outages that no stored message can have waited for.
-- $1 ended_at before this.
delete from provider_holds where ended_at < $1
