-- Lists of devices that cost what they show, and devices that change hands without what was their owner's.

-- What lists are sorted and counted by is told over the link; it follows here, so that an index can have it.
alter table device add column handshake_at integer not null default 0;
alter table device add column online integer not null default 0;
alter table device add column platform integer;
update device set
    handshake_at = coalesce((select last_handshake_at from link where link.device = device.id), 0),
    online = coalesce((select online from link where link.device = device.id), 0),
    platform = coalesce((select greeting ->> '$.platform' from told where told.device = device.id),
        record ->> '$.platform_id', 32);
drop index device_owner;
-- Everything that a page is chosen by, so that what is passed over is not read.
create index device_page on device (owner, handshake_at desc, created_at desc, id, online, name_key);
create index device_online on device (owner, handshake_at desc, created_at desc, id) where online = 1;
create index device_platform on device (owner, platform);

create trigger link_added after insert on link when new.online or new.last_handshake_at begin
    update device set handshake_at = coalesce(new.last_handshake_at, 0), online = new.online where id = new.device;
end;
create trigger link_changed after update of online, last_handshake_at on link
when new.online is not old.online or new.last_handshake_at is not old.last_handshake_at begin
    update device set handshake_at = coalesce(new.last_handshake_at, 0), online = new.online where id = new.device;
end;
create trigger link_gone after delete on link begin
    update device set handshake_at = 0, online = 0 where id = old.device;
end;
create trigger told_changed after update of greeting on told when new.greeting is not old.greeting begin
    update device set platform = coalesce(new.greeting ->> '$.platform', platform)
    where id = new.device and platform is not new.greeting ->> '$.platform';
end;

-- How many devices an owner has.
create table device_count (owner text primary key, number integer not null) without rowid;
insert into device_count select owner, count(*) from device where owner is not null group by owner;
create trigger device_counted after insert on device when new.owner is not null begin
    insert into device_count values (new.owner, 1) on conflict (owner) do update set number = number + 1;
end;
create trigger device_uncounted after delete on device when old.owner is not null begin
    update device_count set number = number - 1 where owner = old.owner;
    delete from device_count where owner = old.owner and number <= 0;
end;

-- Who bound the public key, null for the operator and for the device itself; and one that is not taken again although
-- the device has none.
alter table device_key add column bound_by text;
alter table device_key add column refused text;

-- A device changes hands: name, notes, usage, vitals and where it was are the old owner's, and a key that somebody else
-- than the new one bound may be another device's.
create trigger device_given after update of owner on device when old.owner is not new.owner begin
    update device_count set number = number - 1 where owner = old.owner;
    delete from device_count where owner = old.owner and number <= 0;
    insert into device_count select new.owner, 1 where new.owner is not null
        on conflict (owner) do update set number = number + 1;
    delete from usage where old.owner is not null and device = new.id;
    delete from metrics where old.owner is not null and device = new.id;
    update link set address = '' where old.owner is not null and device = new.id and online = 0;
    update device set name = null, name_key = null, record = json_remove(record, '$.name', '$.notes')
        where old.owner is not null and id = new.id;
    update device_key set public_key = null, refused = public_key, bound_by = null
        where new.owner is not null and device = new.id and bound_by is not null and bound_by <> new.owner;
end;
-- Of devices that were given up before.
update device set record = json_remove(record, '$.notes') where owner is null and record ->> '$.notes' is not null;
delete from usage where device in (select id from device where owner is null);

-- Nobody who follows changes is so far behind.
create trigger device_removed_kept after insert on device_removed begin
    delete from device_removed where changed < new.changed - 1000000;
end;
