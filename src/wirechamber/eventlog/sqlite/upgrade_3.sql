-- Positions that were left out: after an end that was not in order, and where a new era begins.
-- `lost` says that there were events at some of them, which are gone.
create table hole (
    first integer primary key,
    last integer not null,
    lost integer not null
);
