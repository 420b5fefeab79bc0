-- Tokens of the administration API: who knows one may do what its scopes say. Only their SHA-256 is here: 256 random
-- bits need no slow hash. `used_at` is to the hour.
create table api_tokens (
    name text collate "C" primary key,
    hash bytea not null unique,
    scopes text[] not null,
    created_by text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    used_at timestamptz
);

-- What was changed by whom: a token's name or an administrator's bare JID. `outcome` is null until it is known, and
-- for good where the router that did it died over it.
create table audit (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    who text not null,
    address text not null,
    command text not null,
    target text not null,
    outcome text
);

create index audit_by_time on audit (at);
