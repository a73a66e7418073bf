-- Users, tokens, devices, integrations, deliveries and attempts.

-- One row. Raised by the triggers below with every change to users, tokens, devices or integrations, made by any
-- process: what caches compare before they answer.
create table revision (one integer primary key check (one = 1), value integer not null);
insert into revision values (1, 1);

create table user (
    id text primary key,
    name text not null,
    -- The name without regard to case.
    name_key text not null unique,
    password text not null,
    created_at integer not null,
    account_info text not null
) without rowid;

create table token (
    digest blob primary key,
    user text not null references user (id) on delete cascade,
    hint text not null,
    client text not null,
    scopes text not null,
    created_at integer not null,
    expires_at integer
) without rowid;
create index token_user on token (user, created_at);
create index token_expiry on token (expires_at) where expires_at is not null;

create table device (
    id text primary key,
    owner text references user (id) on delete set null,
    name text,
    name_key text,
    last_handshake_at integer,
    created_at integer not null,
    -- The rest of the record, as JSON.
    record text not null
) without rowid;
create unique index device_name on device (owner, name_key) where owner is not null and name_key is not null;
create index device_owner on device (owner, last_handshake_at desc, created_at desc);

create table integration (
    id text primary key,
    owner text not null references user (id) on delete cascade,
    created_at integer not null,
    changed integer not null,
    -- The record without its secrets, as JSON.
    record text not null,
    -- Sealed by the vault for this id; null when there are none.
    secrets blob
) without rowid;
create index integration_owner on integration (owner, created_at, id);
create index integration_changed on integration (changed);

-- What was removed, so that an index in memory can follow.
create table integration_removed (id text primary key, changed integer not null) without rowid;
create index integration_removed_changed on integration_removed (changed);

create table delivery (
    id text primary key,
    integration text not null references integration (id) on delete cascade,
    owner text not null,
    state text not null,
    due_at integer not null,
    deadline_at integer not null,
    error_told integer not null,
    attempts integer not null,
    created_at integer not null,
    cursor text not null,
    why text,
    -- The event, as JSON: retries never depend on the log's retention.
    event text not null
);
create index delivery_due on delivery (state, integration, due_at);
create index delivery_time on delivery (due_at) where state = 'waiting';
create index delivery_deadline on delivery (deadline_at) where error_told = 0 and state in ('waiting', 'held');
create index delivery_integration on delivery (integration);

create table attempt (
    id text primary key,
    delivery text not null,
    integration text not null references integration (id) on delete cascade,
    started_at integer not null,
    ok integer not null,
    device text,
    -- The record without its detail, as JSON.
    record text not null,
    detail blob
);
create index attempt_integration on attempt (integration, id);
create index attempt_delivery on attempt (delivery);
create index attempt_body on attempt (integration, id) where detail is not null and ok = 1;
create index attempt_age on attempt (started_at);

create table counter (
    integration text not null references integration (id) on delete cascade,
    day integer not null,
    success integer not null default 0,
    error integer not null default 0,
    retried integer not null default 0,
    primary key (integration, day)
) without rowid;

-- What plans asked to remember.
create table memory (
    integration text not null references integration (id) on delete cascade,
    key text not null,
    value text not null,
    primary key (integration, key)
) without rowid;

-- How far durable readers have come.
create table reader (name text primary key, cursor text not null) without rowid;

create trigger user_added after insert on user begin update revision set value = value + 1; end;
create trigger user_changed after update on user begin update revision set value = value + 1; end;
create trigger user_removed after delete on user begin update revision set value = value + 1; end;
create trigger token_added after insert on token begin update revision set value = value + 1; end;
create trigger token_removed after delete on token begin update revision set value = value + 1; end;
create trigger device_added after insert on device begin update revision set value = value + 1; end;
create trigger device_changed after update on device begin update revision set value = value + 1; end;
create trigger device_removed after delete on device begin update revision set value = value + 1; end;
create trigger integration_added after insert on integration begin
    update revision set value = value + 1;
    update integration set changed = (select value from revision) where id = new.id;
end;
create trigger integration_changed after update of record, secrets on integration begin
    update revision set value = value + 1;
    update integration set changed = (select value from revision) where id = new.id;
end;
create trigger integration_gone after delete on integration begin
    update revision set value = value + 1;
    insert or replace into integration_removed values (old.id, (select value from revision));
end;
