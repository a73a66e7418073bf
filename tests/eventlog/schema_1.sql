-- The event log, version 1. One row per event; `record` is the whole event as JSON.
-- `position` is given by the writer, contiguous within a run, and never used again.
create table event (
    position integer primary key,
    id text not null,
    owner text not null,
    coreid text not null,
    name text not null,
    received_at integer not null,
    size integer not null,
    record text not null
);

-- Appending an id again stores nothing, for as long as the event is retained.
create unique index event_id on event (id);

-- A reader's scope names an owner; the position is the row id and so part of the index.
create index event_owner on event (owner, position);

-- What each owner's events up to `state.newest` take, and up to where they were removed: for the quota and for gaps.
create table usage (
    owner text primary key,
    bytes integer not null,
    trimmed_to integer not null default 0
) without rowid;

-- One row. `newest` is the highest position given when usage was last counted; `clean` says that the last run closed the
-- log.
create table state (
    one integer primary key check (one = 1),
    newest integer not null,
    trimmed_to integer not null,
    clean integer not null
);

insert into state values (1, 0, 0, 1);
