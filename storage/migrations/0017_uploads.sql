-- Files that accounts upload (XEP-0363): one row for each slot that was granted. What a file is called nobody keeps. `owner` is
-- null where the account is gone, and only the file is left to be deleted.
create table uploads (
    id bytea primary key,                   -- 16 random bytes, by which the storage has it
    owner bigint,
    bytes bigint not null,                  -- as it counts (4,096 at least)
    kept boolean not null,                  -- as long as the account; counted apart
    type text not null,                     -- '' where nobody has said what it is
    state text not null default 'open' check (state in ('open', 'stored', 'doomed')),
    granted_at timestamptz not null default now(),
    expires_at timestamptz,                 -- null: never
    due_at timestamptz not null             -- when something is to be done: see whether an open one was used, delete others
);

create index uploads_by_owner on uploads (owner, expires_at) where owner is not null;
create index uploads_due on uploads (due_at);

-- What the rows of an owner come to, so that nobody adds them up.
create table upload_usage (
    owner bigint primary key,
    files bigint not null,
    bytes bigint not null,
    kept_bytes bigint not null,
    day date not null,                      -- in UTC
    day_bytes bigint not null
);

-- Signs URLs of files and the permits to upload.
insert into secrets (name, value)
values ('uploads', uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
on conflict do nothing;
