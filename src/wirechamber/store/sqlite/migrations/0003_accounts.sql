-- Whose users and tokens changed, so that what is remembered of others stays.

create table account_changed (user text primary key, changed integer not null) without rowid;
create index account_changed_at on account_changed (changed);

drop trigger user_changed;
drop trigger user_removed;
drop trigger token_removed;
create trigger user_changed after update on user begin
    update revision set value = value + 1;
    insert or replace into account_changed values (new.id, (select value from revision));
end;
create trigger user_removed after delete on user begin
    update revision set value = value + 1;
    insert or replace into account_changed values (old.id, (select value from revision));
    -- Nobody is so far behind.
    delete from account_changed where changed < (select value from revision) - 1000000;
end;
create trigger token_removed after delete on token begin
    update revision set value = value + 1;
    insert or replace into account_changed values (old.user, (select value from revision));
end;
