-- Push services (XEP-0357) that accounts have enabled.
create table push_services (
    owner bigint not null,
    jid text collate "C" not null,
    node text collate "C" not null,
    options bytea not null,
    failures int not null,
    enabled_at timestamptz not null default now(),
    primary key (owner, jid, node)
);
