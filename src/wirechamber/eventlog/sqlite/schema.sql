-- The event log, version 3. One row per event; `record` is what other columns do not say, as JSON (rows.py).
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

-- Which events a device published, for events up to `state.indexed_to`. Not an index of `event`: it is written in large
-- sorted steps after the events, so that appending pays little for it, and an older file gets it while it is in use.
create table published (
    coreid text not null,
    position integer not null,
    primary key (coreid, position)
) without rowid;

create trigger published_with_event after delete on event begin
    delete from published where coreid = old.coreid and position = old.position;
end;

-- One row. `newest` is the highest position given when usage was last counted; `clean` says that the last run closed the
-- log.
create table state (
    one integer primary key check (one = 1),
    newest integer not null,
    trimmed_to integer not null,
    clean integer not null,
    indexed_to integer not null default 0
);

insert into state (one, newest, trimmed_to, clean) values (1, 0, 0, 1);

-- Positions that were left out: after an end that was not in order, and where a new era begins.
-- `lost` says that there were events at some of them, which are gone.
create table hole (
    first integer primary key,
    last integer not null,
    lost integer not null
);
