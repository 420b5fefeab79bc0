-- Names that are being erased, and what was removed of each. While it is done, the name is here; afterwards its hash
-- alone, so that nobody else takes the name before `reusable_at`.
create table erasures (
    id bigint primary key,
    shard int not null,
    jid text collate "C",
    name bytea not null,
    with_rooms boolean not null,
    by text not null,
    removed jsonb not null default '{}',
    requested_at timestamptz not null default now(),
    finished_at timestamptz,
    reusable_at timestamptz not null
);

create unique index erasures_pending on erasures (jid) where jid is not null;
create index erasures_by_name on erasures (name);

insert into secrets (name, value)
values ('erased-names', uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
on conflict do nothing;

-- What an account may not: 'ban', nothing at all; 'quarantine', deal with strangers.
create table restrictions (
    owner bigint not null,
    kind text not null check (kind in ('ban', 'quarantine')),
    reason text not null,
    by text not null,
    at timestamptz not null default now(),
    until timestamptz,
    primary key (owner, kind)
);

-- What users have reported while they blocked somebody (XEP-0377). `stanzas` are copies from the reporter's archive.
create table reports (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    reporter text collate "C" not null,
    reported text collate "C" not null,
    reason text not null,
    text text not null,
    ids text[] not null,
    stanzas text[] not null,
    closed_at timestamptz,
    closed_by text not null default '',
    note text not null default ''
);

create index reports_by_reporter on reports (reporter, at);
create index reports_by_reported on reports (reported, at);
create index reports_open on reports (id) where closed_at is null;
