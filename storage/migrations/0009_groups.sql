-- What else a room has: hashes of its pictures (XEP-0486), its hats (XEP-0317), and up to which event everything that
-- was for others than local occupants is certainly with their owners (docs/delivery.md, 7).
alter table rooms
    drop column version,
    add column photos text[] not null default '{}',
    add column hats jsonb not null default '{}',
    add column handed_over bigint not null default 0;

update rooms set handed_over = (extract(epoch from now()) * 1000)::bigint << 20;

-- Class 3: messages of rooms, for members who are away.
create table log_groups partition of log for values in (3) partition by range (id);

-- Up to which message of a room its member has certainly had a chance to see it: the time of the last join.
create table room_visits (
    owner bigint not null,
    room text collate "C" not null,
    id bigint not null,
    primary key (owner, room)
);
