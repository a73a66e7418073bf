-- From version 1. Rows stay as they are; the table is filled while the log is in use.
create table published (
    coreid text not null,
    position integer not null,
    primary key (coreid, position)
) without rowid;

create trigger published_with_event after delete on event begin
    delete from published where coreid = old.coreid and position = old.position;
end;

alter table state add column indexed_to integer not null default 0;
