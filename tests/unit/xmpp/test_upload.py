"""What URLs of files say, what permits permit, what files may be called (xmpp/upload.py)."""

from __future__ import annotations

import unicodedata
from base64 import urlsafe_b64decode, urlsafe_b64encode
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmpp import upload
from xmpp.upload import File, Permit

KEY = b"k" * 32
FILE = File(bytes(range(16)), "très cool.jpg", 23_456, "image/jpeg", 1_900_000_000)
PERMIT = Permit("montague.lit", upload.account_tag("romeo@montague.lit"), 1_800_000_300, 1_800_000_900)
ID, NAME = upload.path(KEY, FILE).split("/")

files = st.builds(
    File,
    st.binary(min_size=16, max_size=16),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60),
    st.integers(0, upload.LARGEST),
    st.sampled_from(["", "image/jpeg", "application/vnd.oasis.opendocument.text"]),
    st.integers(0, 2**40 - 1),
)


@given(files)
def test_a_path_says_what_it_was_made_of(file: File) -> None:
    id_, name = upload.path(KEY, file).split("/")
    assert upload.parse(KEY, id_, unquote(name)) == file
    assert name.isascii()


@given(files, st.integers(0, 200), st.integers(1, 255))
def test_a_path_that_was_changed_says_nothing(file: File, at: int, change: int) -> None:
    id_ = upload.path(KEY, file).split("/")[0]
    raw = bytearray(urlsafe_b64decode(id_ + "=" * (-len(id_) % 4)))
    raw[at % len(raw)] ^= change
    changed = urlsafe_b64encode(raw).rstrip(b"=").decode()
    assert upload.parse(KEY, changed, file.name) is None
    assert upload.parse(KEY, id_, file.name + "x") is None
    assert upload.parse(b"other", id_, file.name) is None


@given(st.text(max_size=300), st.text(max_size=20))
def test_what_is_made_up_says_nothing(id: str, name: str) -> None:
    assert upload.parse(KEY, id, name) is None
    assert upload.permitted(KEY, FILE, id) is None


def test_there_is_one_text_for_one_id() -> None:
    """Bits that base64 does not need, padding, other alphabets: nothing that means the same passes."""
    raw = urlsafe_b64decode(ID + "=" * (-len(ID) % 4))
    assert len(raw) % 3 == 2, "the last character has two bits that nobody needs"
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = ID[:-1] + alphabet[alphabet.index(ID[-1]) ^ 1]
    assert urlsafe_b64decode(twin + "=" * (-len(twin) % 4)) == raw
    for other in (twin, ID + "=", ID + "\n", f" {ID}", ID + "A"):
        assert upload.parse(KEY, other, FILE.name) is None, other


def test_parts_do_not_move_into_each_other() -> None:
    """What ends the type does not begin the name."""
    one = File(FILE.object, "xb", 1, "a/b", 0)
    id_ = upload.path(KEY, one).split("/")[0]
    raw = urlsafe_b64decode(id_ + "=" * (-len(id_) % 4))
    moved = urlsafe_b64encode(raw[:-16] + b"x" + raw[-16:]).rstrip(b"=").decode()
    assert upload.parse(KEY, moved, "b") is None


def test_a_permit_is_for_one_file() -> None:
    token = upload.permission(KEY, FILE, PERMIT)
    assert upload.permitted(KEY, FILE, token) == PERMIT
    assert upload.permitted(KEY, FILE._replace(object=bytes(16)), token) is None
    assert upload.permitted(b"other", FILE, token) is None
    assert upload.permitted(KEY, FILE, token[:-1]) is None
    assert upload.permitted(KEY, FILE, "") is None


@given(st.text(alphabet="abcdefgh-.", min_size=1, max_size=60), st.integers(0, 2**40 - 1), st.integers(0, 2**40 - 1))
def test_a_permit_says_what_it_was_made_of(domain: str, until: int, end: int) -> None:
    permit = Permit(domain, bytes(8), until, end)
    assert upload.permitted(KEY, FILE, upload.permission(KEY, FILE, permit)) == permit


def test_neither_stands_for_the_other() -> None:
    """A URL is public: its id permits nothing, and a permit opens nothing."""
    assert upload.permitted(KEY, FILE, ID) is None
    assert upload.parse(KEY, upload.permission(KEY, FILE, PERMIT), FILE.name) is None


def test_an_account_is_not_named() -> None:
    token = upload.permission(KEY, FILE, PERMIT)
    assert b"romeo" not in urlsafe_b64decode(token + "=" * (-len(token) % 4))


@pytest.mark.parametrize(
    ("given_name", "clean"),
    [
        ("très cool.jpg", "très cool.jpg"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("a/b/", ""),
        ("..", ""),
        (".htaccess", "htaccess"),
        ("a\r\nSet-Cookie: x.txt", "aSet-Cookie: x.txt"),
        ("a\x00.png", "a.png"),
        ("photo\u202egnp.exe", "photognp.exe"),
        ("  a   b .txt  ", "a b.txt"),
        ("e\u0301.txt", "\u00e9.txt"),
        ("trailing...", "trailing"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.txt",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.txt",
        ),
        ("archive.tar.gz", "archive.tar.gz"),
    ],
)
def test_names_stay_as_far_as_they_are_safe(given_name: str, clean: str) -> None:
    assert upload.clean_name(given_name) == clean


@given(st.text(max_size=400))
def test_a_clean_name_is_short_one_line_and_no_path(text: str) -> None:
    name = upload.clean_name(text)
    assert len(name.encode()) <= upload.NAME_BYTES
    assert not set(name) & set("/\\")
    assert name not in (".", "..")
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name)
    assert upload.clean_name(name) == name


def test_a_long_name_keeps_its_ending() -> None:
    name = upload.clean_name("ä" * 300 + ".jpeg")
    assert name.endswith("ä.jpeg")
    assert len(name.encode()) <= upload.NAME_BYTES


def test_media_types() -> None:
    assert upload.clean_type("Text/Plain; charset=utf-8") == "text/plain"
    for wrong in (
        "text",
        "text/",
        "/plain",
        "te xt/plain",
        "text/plain\r\nX: y",
        "a/" + "b" * 200,
        "text/pläin",
        "*/*",
    ):
        with pytest.raises(ValueError, match="no media type"):
            upload.clean_type(wrong)


@pytest.mark.parametrize(
    ("patterns", "taken"),
    [(("*/*",), True), (("image/*",), True), (("image/png",), True), (("image/jpeg", "video/*"), False), ((), False)],
)
def test_which_types_are_taken(patterns: tuple[str, ...], taken: bool) -> None:
    assert upload.is_among("image/png", patterns) is taken
