-- Phone numbers are kept as E.164 in recipient; what the partner wrote, where that is not the same, is what it is shown.
alter table deliveries add column written text;
