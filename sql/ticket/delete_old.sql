-- Deletes tickets that are no longer valid.
-- $1 valid_until before this.
delete from tickets where valid_until < $1
