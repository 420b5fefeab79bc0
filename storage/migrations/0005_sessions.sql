-- Bound sessions. The columns from conf on are the snapshot from which a lost session is rebuilt (docs/delivery.md):
-- unacknowledged lists the log ids of the deliveries q - n + 1 ... q, null where a delivery was not logged.
create table sessions (
    sid bigint primary key,
    shard int not null,
    owner bigint not null,
    bare text collate "C" not null,
    resource text collate "C" not null,
    node text not null,
    gen int not null,
    request text not null,
    at timestamptz not null,
    conf bigint not null,
    q bigint not null,
    known_q bigint not null,
    last_id bigint not null,
    unacknowledged bigint[] not null,
    state bytea
) with (fillfactor = 70);

create index sessions_by_shard on sessions (shard);
