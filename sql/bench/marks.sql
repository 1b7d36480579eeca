-- Marks of ended deliveries that nobody has looked at yet.
select count(*) as "n!" from endings
