-- Every bare JID that owns something gets a small integer key, whether there is an account or not.
create table entities (
    key bigint generated always as identity primary key,
    jid text collate "C" not null unique,
    shard int not null,
    kind text not null
);

create index entities_by_domain on entities (split_part(jid, '@', 2), jid);

create table accounts (
    key bigint primary key,
    shard int not null,
    created_at timestamptz not null default now(),
    enabled boolean not null default true,
    roster_version bigint not null,
    last_at timestamptz,
    last_status text not null default ''
);

-- What SCRAM stores (RFC 5802, 3), one row for each hash function. Passwords are nowhere.
create table credentials (
    key bigint not null,
    hash text not null,
    salt bytea not null,
    iterations int not null,
    stored_key bytea not null,
    server_key bytea not null,
    primary key (key, hash)
);
