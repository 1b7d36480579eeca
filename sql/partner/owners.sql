-- All partners and where they live.
select partner_id, shard from partners
