-- The log: each message that is kept, once for each owner (docs/delivery.md). An id is (Unix milliseconds << 20) plus
-- a counter, so a range of ids is a range of time: partitioned by class, then by time, retention drops partitions.
--   class    0 = kept only until it is delivered, 1 = archived
--   dir      0 = to the owner, 1 = from the owner
--   forward  0 = nothing left to do, 1 = goes to another owner (dir 1 only)
--   sid, n   the key of the message: who sent it and as which of theirs
--   head     the stanza's attributes (msgpack); inner is its content
create table log (
    shard int not null,
    owner bigint not null,
    id bigint not null,
    class smallint not null,
    dir smallint not null,
    forward smallint not null,
    peer text collate "C" not null,
    sid bigint not null,
    n bigint not null,
    head bytea not null,
    inner_xml bytea not null,
    primary key (owner, id, class)
) partition by list (class);

create table log_queue partition of log for values in (0) partition by range (id);
create table log_archive partition of log for values in (1) partition by range (id);

-- The offline cursor: everything up to `delivered` has reached a client, but for the ids in `strays`.
alter table accounts
    add column delivered bigint not null default 0,
    add column strays bigint[] not null default '{}',
    add column archive_default text check (archive_default in ('always', 'roster', 'never')),
    add column archive_always text[] not null default '{}',
    add column archive_never text[] not null default '{}';

-- Stream management (XEP-0198): what a session needs to be resumed. Stanzas count from n0 and q0 on.
alter table sessions
    add column resumable boolean not null default false,
    add column n0 bigint not null default 0,
    add column q0 bigint not null default 0,
    add column detached_at timestamptz;
