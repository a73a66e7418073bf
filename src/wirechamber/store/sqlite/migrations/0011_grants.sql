-- Refresh tokens, and clients that users registered.

-- What came of one login: the access tokens and refresh tokens that were handed out one after the other.
alter table token add column family text;
create index token_family on token (family) where family is not null;
create index token_client on token (client);

-- One that was used stays until its time is over: who shows it again has copied it.
create table refresh_token (
    digest blob primary key,
    family text not null,
    user text not null references user (id) on delete cascade,
    client text not null,
    scopes text not null,
    -- Milliseconds that each access token lives; 0 for ever.
    life integer not null,
    created_at integer not null,
    expires_at integer not null,
    used_at integer
) without rowid;
create index refresh_token_family on refresh_token (family);
create index refresh_token_user on refresh_token (user, created_at);
create index refresh_token_client on refresh_token (client);
create index refresh_token_expiry on refresh_token (expires_at);

create table oauth_client (
    id text primary key,
    owner text not null references user (id) on delete cascade,
    name text not null,
    type text not null,
    redirect_uri text,
    scopes text not null,
    -- SHA-256.
    secret blob not null,
    created_at integer not null
) without rowid;
create index oauth_client_owner on oauth_client (owner, created_at, id);
