-- What was noted of the data folder's other files, so that it is seen when they are lost or others: by the name of a
-- file, the fingerprint of the key in it.
create table fact (name text primary key, value text not null) without rowid;
