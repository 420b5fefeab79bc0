-- Lists of abusers that others publish (storage/blocklists.py), as they were seen last.
create table blocklists (
    name text collate "C" primary key,
    entries text[] not null,
    refreshed_at timestamptz not null
);
