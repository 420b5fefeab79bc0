-- Live processes; a restarted one takes its predecessor's row. Updated twice a second by each.
create table nodes (
    name text primary key,
    incarnation text not null,
    role text not null,
    address text not null,
    wire int not null,
    is_leaving boolean not null,
    started_at timestamptz not null,
    seen_at timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- Who owns each shard, and under which epoch. Rows are locked FOR SHARE by each commit and rewritten by each take.
create table shards (
    shard int primary key check (shard between 0 and 1023),
    owner text,
    epoch bigint not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

insert into shards (shard, owner, epoch) select shard, null, 0 from generate_series(0, 1023) shard;

-- Random bytes that every process of the cluster must have alike, made by whoever needs them first.
create table secrets (
    name text primary key,
    value bytea not null
);
