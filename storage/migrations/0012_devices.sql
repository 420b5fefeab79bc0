-- Devices that have signed in (XEP-0388, user-agent), each with two slots for a token (XEP-0484, 6.1): the one that it
-- uses, and the one that it was given last and has not used yet. `device` is a digest of the id that the client made up.
create table devices (
    key bigint not null,
    device bytea not null,
    software text not null default '',
    name text not null default '',
    address text not null default '',
    first_seen timestamptz not null default now(),
    last_seen timestamptz not null default now(),
    by_password boolean not null default false,
    token text,
    mechanism text,
    expires_at timestamptz,
    new_token text,
    new_mechanism text,
    new_expires_at timestamptz,
    primary key (key, device)
);
