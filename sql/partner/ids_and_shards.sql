-- Id and shard of every partner.
select partner_id, shard from partners
