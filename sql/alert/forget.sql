-- $1 what was over before this.
delete from alerts where cleared_at < $1
