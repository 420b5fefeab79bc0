-- Private XML Storage (XEP-0049): one element for each name, "namespace local".
create table private_xml (
    owner bigint not null,
    name text collate "C" not null,
    xml bytea not null,
    primary key (owner, name)
);

-- vcard-temp (XEP-0054)
create table vcards (
    owner bigint primary key,
    xml bytea not null,
    updated_at timestamptz not null default now()
);
