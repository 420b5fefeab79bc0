-- Invitations (XEP-0401, XEP-0445), and links by which a password is set. Of a token only the SHA-256 is kept.
create table invitations (
    id bigint generated always as identity primary key,
    hash bytea not null unique,
    kind text not null,                     -- account, contact, reset
    domain text collate "C" not null,
    maker text collate "C" not null,        -- bare JID, '' for an operator
    jid text collate "C" not null,          -- the account to be made, or whose password is set; '' where one chooses
    contact text collate "C" not null,      -- whose contact somebody becomes by it, '' for nobody's
    uses int not null,
    used text[] not null default '{}',      -- bare JIDs that have used it
    told text[] not null default '{}',      -- of those, whom the contact's roster has
    pending text[] not null default '{}',   -- bare JIDs that are about to
    pending_at timestamptz not null default now(),
    created_at timestamptz not null default now(),
    expires_at timestamptz
);

create index invitations_by_maker on invitations (maker) where maker <> '';
create index invitations_by_jid on invitations (jid) where jid <> '';
create index invitations_by_contact on invitations (contact) where contact <> '';
create index invitations_to_tell on invitations (id) where contact <> '' and cardinality(told) < cardinality(used);
