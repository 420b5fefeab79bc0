"""Prosody's stores, also those of older versions, and what of them does not come along."""

from __future__ import annotations

from pathlib import Path

import pytest

from stentor.moving.prosody import Prosody
from stentor.moving.prosody_files import Files
from stentor.moving.things import (
    Account,
    Affiliation,
    Blocked,
    Contact,
    Item,
    LeftOut,
    Message,
    Node,
    Preferences,
    Request,
    Room,
    Thing,
    Unreadable,
)


def put(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def read(root: Path, *only: str) -> tuple[dict[str, Thing], list[tuple[str, Thing]]]:
    source = Prosody(Files(root), frozenset(only))
    return dict(source.accounts()), list(source.data())


def test_names_of_files_are_decoded(tmp_path: Path) -> None:
    put(tmp_path, "a%2eexample/accounts/j%c3%bcl%2eia.dat", 'return { ["password"] = "p\\195\\188" };')
    accounts, _ = read(tmp_path)
    assert accounts == {"jül.ia@a.example": Account((), "pü")}


def test_what_an_older_prosody_kept(tmp_path: Path) -> None:
    put(tmp_path, "a/accounts/j.dat", "return {};")
    put(
        tmp_path,
        "a/roster/j.dat",
        'return { ["pending"] = { ["x@b"] = true }; ["r@b"] = { subscription = "to"; groups = {}; ask = "subscribe" } };',
    )
    put(
        tmp_path,
        "a/offline/j.list",
        'item({ name = "message"; attr = { stamp = "2010-01-02T03:04:05Z"; stamp_legacy = "x"; from = "r@b" } });',
    )
    _, data = read(tmp_path)
    assert data[:2] == [("j@a", Contact("r@b", "", (), "to", True)), ("j@a", Request("x@b"))]
    (_, waiting) = data[2]
    assert waiting.xml == '<message from="r@b"/>'  # type: ignore[union-attr]
    assert waiting.at == 1_262_401_445_000_000  # type: ignore[union-attr]


def test_all_of_an_account(tmp_path: Path) -> None:
    key = "ab" * 32
    put(
        tmp_path,
        "a/accounts/j.dat",
        f'return {{ salt = "\\255x"; iteration_count = 4096; stored_key = "{key}"; server_key = "{key}" }};',
    )
    put(tmp_path, "a/blocklist/j.dat", 'return { [false] = { created = 1 }; ["t@b"] = 1 };')
    put(tmp_path, "a/archive_prefs/j.dat", 'return { [false] = false; ["t@b"] = true; ["u@b"] = false };')
    put(
        tmp_path,
        "a/pep/j.dat",
        'return { ["urn:n"] = { config = { max_items = 3; access_model = "open"; odd = "x" }; affiliations = { ["t@b"] = "member" }; subscribers = { ["u@b"] = true } }; old = true };',
    )
    put(
        tmp_path,
        "a/pep_urn%3an/j.list",
        'item({ name = "n"; attr = { xmlns = "urn:n"; ["urn:o\\1x"] = "1" }; key = "i"; when = 1.5; with = "j@a" });',
    )
    put(
        tmp_path,
        "a/archive/j.list",
        "".join(
            f'item({{ {{ "{n}"; name = "body"; attr = {{}} }}; name = "message"; attr = {{}}; key = "{n}"; when = 7 }});\n'
            for n in range(2)
        ),
    )
    put(tmp_path, "a/odd/j.dat", "return {};")
    put(tmp_path, "a/vcard/k.dat", "return {};")
    accounts, data = read(tmp_path)
    (account,) = accounts.values()
    assert isinstance(account, Account)
    assert [(one.hash, one.iterations) for one in account.credentials] == [("SHA-256", 4096)]
    assert [thing for _, thing in data] == [
        Blocked("t@b"),
        Preferences("never", ("t@b",), ("u@b",)),
        Node(
            "urn:n",
            {"pubsub#max_items": ("3",), "pubsub#access_model": ("open",), "prosody#odd": ("",)},
            {"t@b": "member"},
            ("u@b",),
        ),
        Item("urn:n", "i", '<n xmlns="urn:n" xmlns:n0="urn:o" n0:x="1"/>', "j@a", 1_500_000),
        Node("old"),
        Message(7_000_000, "0", "<message><body>0</body></message>"),
        Message(7_000_001, "1", "<message><body>1</body></message>"),
        LeftOut("odd", "the store 'odd' is not known"),
        LeftOut("vcard", "nobody of this name has an account"),
    ]


def test_rooms(tmp_path: Path) -> None:
    put(tmp_path, "rooms/persistent.dat", 'return { ["v@rooms"] = true };')
    put(
        tmp_path,
        "rooms/config/v.dat",
        'return { ["_jid"] = "v@rooms"; ["_data"] = { persistent = true; name = "V"; password = "p"; whois = "anyone" }; ["_affiliations"] = { ["j@a"] = "owner" }; ["_affiliation_data"] = { ["j@a"] = { reserved_nickname = "jul"; reason = "r" } } };',
    )
    put(tmp_path, "rooms/config/w.dat", 'return { ["_jid"] = "w@rooms"; ["_data"] = {} };')
    put(tmp_path, "rooms/vcard_muc/v.dat", "return {};")
    put(tmp_path, "pubsub/pubsub_nodes/n.dat", "return {};")
    _, data = read(tmp_path, "rooms")
    room = data[0][1]
    assert isinstance(room, Room)
    assert (room.options["roomname"], room.options["roomsecret"], room.options["whois"]) == ("V", "p", "anyone")
    assert data[1:] == [
        ("v@rooms", Affiliation("j@a", "owner", "jul", "r")),
        ("w@rooms", LeftOut("room", "it is there only as long as somebody is in it")),
        ("rooms", LeftOut("vcard_muc", "the store 'vcard_muc' is not known")),
    ]
    _, data = read(tmp_path, "pubsub")
    assert [thing.what for _, thing in data if isinstance(thing, LeftOut)] == ["pubsub_nodes"]


def test_accounts_of_somebody_elses_passwords(tmp_path: Path) -> None:
    put(tmp_path, "a/roster/j.dat", "return {};")
    put(tmp_path, "a/vcard/k.dat", "return {};")
    accounts, _ = read(tmp_path)
    assert accounts == {"j@a": Account(), "k@a": Account()}


def test_an_error_names_file_and_line(tmp_path: Path) -> None:
    put(tmp_path, "a/accounts/j.dat", 'return { ["password"] = "p" };')
    put(tmp_path, "a/archive/j.list", 'item({ name = "message"; attr = {}; when = 1 });\nitem({ oops(')
    with pytest.raises(Unreadable, match=r"a/archive/j\.list: line 2"):
        read(tmp_path)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="data_path"):
        Files(tmp_path)
