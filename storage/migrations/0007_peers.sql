-- Other servers and components. What is sent to one of their domains is kept until it was handed over or given back:
-- rows of class 2 in the log of the domain, and a cursor as an account has one.
create table log_outbound partition of log for values in (2) partition by range (id);

create table peers (
    key bigint primary key references entities,
    shard int not null,
    delivered bigint not null default 0,
    strays bigint[] not null default '{}'
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

create index peers_by_shard on peers (shard);
