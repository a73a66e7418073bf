-- Attempts as compact rows, what was sent and answered apart from them; removals in steps; what owners have, counted.

-- Short numbers for integrations, in rows that there are many of, and what each has of them. A number outlives its
-- integration until all of those are removed.
create table numbered (
    n integer primary key,
    integration text not null unique,
    owner text not null,
    attempts integer not null default 0,
    -- Of bodies.
    bytes integer not null default 0
);
create index numbered_owner on numbered (owner);
insert into numbered (integration, owner) select id, owner from integration;

-- Brought over in steps, newest first, while the cloud runs (`sweeping`); then the table goes.
alter table attempt rename to attempt_before;

create table attempt (
    n integer not null,
    ok integer not null,
    -- Ids are bytes, and begin with the time.
    id blob not null,
    delivery blob not null,
    event blob not null,
    name text not null,
    -- Null: the same as the device.
    coreid blob,
    device blob,
    number integer not null,
    final integer not null,
    status integer,
    duration_ms integer not null,
    why text,
    -- Null: as the id says.
    started_at integer,
    -- `body.seq`; the body may be gone.
    body integer,
    primary key (n, ok, id)
) without rowid;
create index attempt_of_device on attempt (device, n, ok, id) where device is not null;

-- What attempts sent and were answered. The oldest go first, and whole: their pages are used again.
create table body (
    seq integer primary key,
    n integer not null,
    ok integer not null,
    attempt blob not null,
    started_at integer not null,
    detail blob not null
);
create index body_of on body (n, ok, seq);

-- Removed rows that are still to be cleared away: nobody sees them any more.
alter table integration add column removed integer not null default 0;
create index integration_going on integration (id) where removed = 1;
alter table user add column removed integer not null default 0;
create index user_going on user (id) where removed = 1;

-- What an owner's integrations are together, so that nobody has to count.
create table holding (owner text primary key, integrations integer not null, bytes integer not null) without rowid;
insert into holding select owner, count(*), sum(length(record) + coalesce(length(secrets), 0)) from integration group by owner;

-- Readers learned of the removal when it was marked: clearing away is no change.
drop trigger integration_gone;
create trigger integration_gone after delete on integration begin
    insert or replace into integration_removed values (old.id, old.changed);
end;

-- Up to which revision removals are not remembered any more: who read less must read everything.
create table forgotten (what text primary key, revision integer not null) without rowid;
