-- Rows of `endings` that no process has taken yet.
select count(*) as "n!" from endings
