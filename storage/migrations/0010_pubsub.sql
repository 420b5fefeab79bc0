-- Nodes (XEP-0060) of accounts (XEP-0163) and of services; `owner` is the key of the entity that has them.
create table pubsub_nodes (
    key bigint primary key,
    owner bigint not null,
    node text collate "C" not null,
    config jsonb not null,
    creator text not null,
    created_at timestamptz not null default now(),
    unique (owner, node)
);

-- What was published last under each name; `seq` is an id as those of the log are: its time and its place. By `sid` and
-- `n`, its sender and their number, a publication that is carried out a second time is known.
create table pubsub_items (
    node bigint not null references pubsub_nodes (key) on delete cascade,
    id text collate "C" not null,
    seq bigint not null,
    publisher text not null,
    sid bigint not null,
    n bigint not null,
    payload bytea not null,
    primary key (node, id)
);

create index pubsub_items_in_order on pubsub_items (node, seq);

create table pubsub_affiliations (
    node bigint not null references pubsub_nodes (key) on delete cascade,
    jid text collate "C" not null,
    affiliation smallint not null,
    primary key (node, jid)
);

create table pubsub_subscriptions (
    node bigint not null references pubsub_nodes (key) on delete cascade,
    jid text collate "C" not null,
    subid text not null,
    is_pending boolean not null,
    primary key (node, jid)
);

-- Which notifications the clients with these capabilities want (XEP-0115, XEP-0390): answers that bear their hash out.
create table capabilities (
    name text collate "C" primary key,
    wants text[] not null,
    seen_at timestamptz not null default now()
);
