-- Rooms (XEP-0045). Their messages are rows of the log; what is here changes seldom, but for occupants.
create table rooms (
    key bigint primary key references entities,
    shard int not null,
    origin bigint not null,
    config jsonb not null,
    subject bytea,
    version bigint not null default 0,
    created_at timestamptz not null default now()
);

create index rooms_by_shard on rooms (shard);

-- affiliation   0 = outcast, 1 = none, 2 = member, 3 = admin, 4 = owner
-- nick          the nickname that the user has registered
create table room_affiliations (
    room bigint not null,
    jid text collate "C" not null,
    affiliation smallint not null,
    nick text collate "C",
    reason text not null default '',
    changed bigint not null,
    primary key (room, jid)
);

create index room_affiliations_by_jid on room_affiliations (jid);

-- Who is in a room, by full JID; role 0: somebody who has gone lately, for routers that may not have heard of it.
--   sid       of a local session, 0 for a user of another server
--   changed   the id of the event that made it so, of the same sequence as the room's messages
create table room_occupants (
    room bigint not null,
    jid text collate "C" not null,
    nick text collate "C" not null,
    role smallint not null,
    sid bigint not null,
    presence bytea,
    changed bigint not null,
    primary key (room, jid)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
