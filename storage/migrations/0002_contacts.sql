-- A contact that is not in the roster is there only because its subscription request waits for an answer.
create table rosters (
    owner bigint not null,
    contact text collate "C" not null,
    name text not null,
    groups text[] not null,
    subscription text not null check (subscription in ('none', 'to', 'from', 'both')),
    ask boolean not null,
    approved boolean not null,
    pending_in boolean not null,
    pending_stanza bytea not null,
    in_roster boolean not null,
    version bigint not null,
    primary key (owner, contact)
);

-- What was removed and when, for clients that know an older version of the roster (RFC 6121, 2.6).
create table roster_removed (
    owner bigint not null,
    contact text collate "C" not null,
    version bigint not null,
    primary key (owner, contact)
);

create table blocks (
    owner bigint not null,
    jid text collate "C" not null,
    primary key (owner, jid)
);
