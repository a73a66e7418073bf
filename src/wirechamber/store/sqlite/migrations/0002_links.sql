-- Device links: sessions, what devices told, their keys, claim codes, and what they used.

-- Who connected last is the link's to say.
drop index device_owner;
alter table device drop column last_handshake_at;
create index device_owner on device (owner, created_at desc);

-- What changed in the registry, so that caches can follow.
alter table device add column changed integer not null default 0;
create index device_changed_at on device (changed);
create table device_removed (id text primary key, changed integer not null) without rowid;
create index device_removed_changed on device_removed (changed);
drop trigger device_added;
drop trigger device_changed;
drop trigger device_removed;
create trigger device_added after insert on device begin
    update revision set value = value + 1;
    update device set changed = (select value from revision) where id = new.id;
    delete from device_removed where id = new.id;
end;
create trigger device_changed after update of owner, name, name_key, record on device begin
    update revision set value = value + 1;
    update device set changed = (select value from revision) where id = new.id;
end;
create trigger device_gone after delete on device begin
    update revision set value = value + 1;
    insert or replace into device_removed values (old.id, (select value from revision));
end;

-- A device's keys. A change ends its sessions: theirs were agreed with the old ones.
create table device_key (
    device text primary key references device (id) on delete cascade,
    -- DER, in base64.
    public_key text,
    -- Sealed by the vault for this device, in base64.
    psk text,
    changed_at integer not null,
    changed integer not null default 0
) without rowid;
create index device_key_changed on device_key (changed);
create trigger device_key_added after insert on device_key begin
    update revision set value = value + 1;
    update device_key set changed = (select value from revision) where device = new.device;
    delete from session where device = new.device;
end;
create trigger device_key_changed after update of public_key, psk on device_key begin
    update revision set value = value + 1;
    update device_key set changed = (select value from revision) where device = new.device;
    delete from session where device = new.device;
end;

create table claim_code (
    digest blob primary key,
    owner text not null references user (id) on delete cascade,
    created_at integer not null,
    expires_at integer not null,
    device text
) without rowid;
create index claim_code_expiry on claim_code (expires_at);

-- What does not change in a session …
create table session (
    id text primary key,
    device text references device (id) on delete cascade,
    -- Hex; null when the device's records have none.
    cid text unique,
    deviceos integer not null,
    created_at integer not null,
    -- Sealed by the vault for this session, in base64.
    state text not null
) without rowid;
create index session_device on session (device);

-- … and what changes all the time, apart from it: these rows are small, and thousands are written at a time.
create table progress (
    session text primary key references session (id) on delete cascade,
    send_limit integer not null,
    top integer not null,
    -- Hex.
    mids text not null,
    address text not null
) without rowid;

create table link (
    device text primary key references device (id) on delete cascade,
    online integer not null default 0,
    last_heard integer,
    last_handshake_at integer,
    address text not null default '',
    resume_from text
) without rowid;
create index link_online on link (device) where online = 1;

-- What the device told of itself since it greeted, as JSON.
create table told (
    device text primary key references device (id) on delete cascade,
    greeting text,
    functions text,
    variables text,
    system text,
    system_at integer
) without rowid;

create table subscription (
    device text not null references device (id) on delete cascade,
    prefix text not null,
    -- Only events of this device; empty for any.
    sender text not null,
    binary integer not null,
    cbor integer not null,
    -- What a plain CoAP device finds its events by, in hex.
    token text not null default '',
    primary key (device, prefix, sender)
) without rowid;

create table metrics (
    device text primary key references device (id) on delete cascade,
    at integer not null,
    metrics text not null
) without rowid;

create table usage (
    device text not null references device (id) on delete cascade,
    hour integer not null,
    purpose integer not null,
    up_bytes integer not null,
    up_datagrams integer not null,
    down_bytes integer not null,
    down_datagrams integer not null,
    publishes integer not null,
    data_bytes integer not null,
    primary key (device, hour, purpose)
) without rowid;
create index usage_hour on usage (hour);
