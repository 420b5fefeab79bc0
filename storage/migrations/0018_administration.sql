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

-- Long work that operators have asked for (router/jobs.py): how far it is, and which router does it. A router that was
-- silent for so long is done for, and another goes on from `position`.
create table jobs (
    id bigint generated always as identity primary key,
    kind text not null,
    arguments jsonb not null,
    state text not null default 'running' check (state in ('running', 'done', 'aborted', 'failed')),
    position text not null default '',
    done bigint not null default 0,
    total bigint not null,
    problem text not null default '',
    created_by text not null,
    created_at timestamptz not null default now(),
    finished_at timestamptz,
    runner text,
    beat_at timestamptz
);

create index jobs_running on jobs (id) where state = 'running';
