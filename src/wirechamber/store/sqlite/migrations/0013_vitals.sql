-- What devices measured, not the newest alone.

create table vitals (
    device text not null references device (id) on delete cascade,
    at integer not null,
    -- By name, as JSON.
    metrics text not null,
    primary key (device, at)
) without rowid;
create index vitals_at on vitals (at);
insert into vitals select device, at, metrics from metrics;

drop trigger device_given;
create trigger device_given after update of owner on device when old.owner is not new.owner begin
    update device_count set number = number - 1 where owner = old.owner;
    delete from device_count where owner = old.owner and number <= 0;
    insert into device_count select new.owner, 1 where new.owner is not null
        on conflict (owner) do update set number = number + 1;
    delete from usage where old.owner is not null and device = new.id;
    delete from vitals where old.owner is not null and device = new.id;
    update link set address = '' where old.owner is not null and device = new.id and online = 0;
    update device set name = null, name_key = null, record = json_remove(record, '$.name', '$.notes')
        where old.owner is not null and id = new.id;
    update device_key set public_key = null, refused = public_key, bound_by = null
        where new.owner is not null and device = new.id and bound_by is not null and bound_by <> new.owner;
end;
drop table metrics;
