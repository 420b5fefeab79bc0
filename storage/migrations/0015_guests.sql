-- Accounts of people who sign in anonymously (XEP-0175): each lasts as long as its session. `network` is where its client
-- is: an IPv4 address, or the /64 of an IPv6 one.
create table guests (
    key bigint primary key,
    jid text collate "C" not null unique,
    shard int not null,
    domain text collate "C" not null,
    network text not null,
    at timestamptz not null default now()
);

create index guests_by_network on guests (domain, network);
