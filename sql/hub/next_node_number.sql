-- The next node number for ids.
select nextval('node_seq') as "node!"
