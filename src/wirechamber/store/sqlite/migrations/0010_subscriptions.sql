-- One device may want the same events in several forms, each for a handler of its own.
create table subscription_of_forms (
    device text not null references device (id) on delete cascade,
    prefix text not null,
    -- Only events of this device; empty for any.
    sender text not null,
    binary integer not null,
    cbor integer not null,
    -- What a plain CoAP device finds its events by, in hex.
    token text not null default '',
    primary key (device, prefix, sender, binary, cbor)
) without rowid;

insert into subscription_of_forms select device, prefix, sender, binary, cbor, token from subscription;
drop table subscription;
alter table subscription_of_forms rename to subscription;
