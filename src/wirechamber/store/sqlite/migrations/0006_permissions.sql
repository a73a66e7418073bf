-- What the operator granted a user; nothing at first.

alter table user add column permissions text not null default '[]';
