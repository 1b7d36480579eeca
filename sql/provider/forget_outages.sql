-- No message is left that waited for these. $1 what ended before this.
delete from provider_holds where ended_at < $1
