-- Events of a device that were not taken, since it came first.
alter table link add column publishes_refused integer not null default 0;
