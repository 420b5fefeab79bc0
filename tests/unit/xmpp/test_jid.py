"""Addresses: which texts are JIDs, and which JIDs are the same (RFC 7622)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmpp import jid
from xmpp.errors import JidError, XmppError
from xmpp.jid import JID, bare_of, domain_of, local_of, parse, prepare, resource_of

# RFC 7622, 3.5, table 1: what each means once it is prepared.
VALID = [
    ("juliet@example.com", ("juliet", "example.com", "")),
    ("juliet@example.com/foo", ("juliet", "example.com", "foo")),
    ("juliet@example.com/foo bar", ("juliet", "example.com", "foo bar")),
    ("juliet@example.com/foo@bar", ("juliet", "example.com", "foo@bar")),
    ("foo\\20bar@example.com", ("foo\\20bar", "example.com", "")),  # XEP-0106
    ("fussball@example.com", ("fussball", "example.com", "")),
    ("fu\u00dfball@example.com", ("fu\u00dfball", "example.com", "")),
    ("\u03c0@example.com", ("\u03c0", "example.com", "")),
    ("\u03a3@example.com/foo", ("\u03c3", "example.com", "foo")),
    ("\u03c3@example.com/foo", ("\u03c3", "example.com", "foo")),
    ("\u03c2@example.com/foo", ("\u03c2", "example.com", "foo")),
    ("king@example.com/\u265a", ("king", "example.com", "\u265a")),
    ("example.com", ("", "example.com", "")),
    ("example.com/foobar", ("", "example.com", "foobar")),
    ("a.example.com/b@example.net", ("", "a.example.com", "b@example.net")),
]
# Table 2. Its "juliet@example.com/ foo" is missing here: OpaqueString lets a resource begin with a space.
INVALID = [
    '"juliet"@example.com',
    "foo bar@example.com",
    "@example.com/",
    "henry\u2163@example.com",
    "\u265a@example.com",
    "juliet@",
    "/foobar",
]


@pytest.mark.parametrize(("text", "parts"), VALID)
def test_the_valid_examples_of_the_rfc(text: str, parts: tuple[str, str, str]) -> None:
    assert parse(text) == JID(*parts)


@pytest.mark.parametrize("text", INVALID)
def test_the_invalid_examples_of_the_rfc(text: str) -> None:
    with pytest.raises(JidError):
        parse(text)


def test_a_resource_may_begin_and_end_with_a_space() -> None:
    assert parse("juliet@example.com/ foo ").resource == " foo "


def test_sharp_s_and_final_sigma_are_letters_of_their_own() -> None:
    assert len({parse(text) for text in ("fussball@a", "fu\u00dfball@a")}) == 2
    assert len({parse(text) for text in ("\u03a3@a", "\u03c3@a", "\u03c2@a")}) == 2


@pytest.mark.parametrize("text", ["", "/", "@", "@/", "@a", "a@/b", "a@b/", "b/", "a@", "@b/c", ".", "a@."])
def test_no_part_is_empty(text: str) -> None:
    with pytest.raises(JidError):
        parse(text)


def test_the_first_slash_and_the_first_at_before_it_separate() -> None:
    assert parse("a@b/c/d@e") == JID("a", "b", "c/d@e")  # RFC 7622, 3.1
    assert parse("b//") == JID("", "b", "/")
    with pytest.raises(JidError):
        parse("a@b@c")


# --- localparts: UsernameCaseMapped (RFC 7622, 3.3)


@pytest.mark.parametrize("character", list("\"&'/:<>@ \t\n\0\x7f\u00a0\u200b\u200d\u2028\u3000\ue000\ufeff\u00ad"))
@pytest.mark.parametrize("local", ["{}", "a{}b", "{}\u00e9"])
def test_characters_that_no_localpart_has(character: str, local: str) -> None:
    with pytest.raises(JidError):
        JID.of(local.format(character), "example.com")


@pytest.mark.parametrize("wide", ["\uff20", "\uff0f", "\uff1a", "\uff1c", "\uff1e", "\uff02", "\uff06", "\uff07"])
def test_nor_by_their_wide_forms(wide: str) -> None:
    with pytest.raises(JidError):
        parse(f"a{wide}b@example.com")


def test_every_other_ascii_character_may_be_in_a_localpart() -> None:
    for character in "!#$%()*+,-.;=?[\\]^_`{|}~0189azAZ":
        assert JID.of(f"a{character}", "b").local == f"a{character}".lower()


@pytest.mark.parametrize(
    ("local", "prepared"),
    [
        ("JULIET", "juliet"),
        ("J\u00dcRGEN", "j\u00fcrgen"),
        ("u\u0308", "\u00fc"),  # NFC
        ("\uff2a\uff55\uff4c", "jul"),  # width mapping
        ("\u212b", "\u00e5"),  # ANGSTROM SIGN
        ("\u1e9e", "\u00df"),
        ("\u0130", "i\u0307"),
        ("\u05d0\u05d1", "\u05d0\u05d1"),
        ("\u05d01", "\u05d01"),
        ("l\u00b7l", "l\u00b7l"),  # RFC 5892, A.3
    ],
)
def test_localparts_that_look_the_same_are_the_same(local: str, prepared: str) -> None:
    assert parse(f"{local}@example.com").local == prepared
    assert parse(f"{prepared}@example.com").local == prepared


@pytest.mark.parametrize(
    "local",
    [
        "\ufb01sh",  # compatibility characters are no letters here
        "a\u00b7b",  # CONTEXTO, RFC 5892, A.3
        "\u0660\u06f0",  # A.8
        "a\u05d0",  # Bidi Rule, RFC 5893, 2
        "1\u05d0",
        "\u05d0a",
        "\ud800",
        "\u0378",  # not assigned
    ],
)
def test_localparts_that_precis_refuses(local: str) -> None:
    with pytest.raises(JidError):
        parse(f"{local}@example.com")


# --- domains (RFC 7622, 3.2)


@pytest.mark.parametrize(
    ("domain", "prepared"),
    [
        ("EXAMPLE.com", "example.com"),
        ("example.com.", "example.com"),
        ("localhost", "localhost"),
        ("xn--mnchen-3ya.de", "m\u00fcnchen.de"),
        ("XN--MNCHEN-3YA.de", "m\u00fcnchen.de"),
        ("M\u00dcNCHEN.de.", "m\u00fcnchen.de"),
        ("mu\u0308nchen.de", "m\u00fcnchen.de"),
        ("fa\u00df.de", "fa\u00df.de"),
        ("\uff45xample\u3002com", "example.com"),
        ("example.com\u3002", "example.com"),
        ("\u4f8b\u3048.jp", "\u4f8b\u3048.jp"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("[2001:DB8:0:0::1]", "[2001:db8::1]"),
        ("a" * 63 + ".org", "a" * 63 + ".org"),
        (".".join(["a" * 62] * 4), ".".join(["a" * 62] * 4)),
    ],
)
def test_domains_that_are_the_same(domain: str, prepared: str) -> None:
    assert JID.of("", domain).domain == prepared
    assert parse(f"juliet@{domain}/x") == JID("juliet", prepared, "x")
    assert JID.of("", prepared).domain == prepared


@pytest.mark.parametrize(
    "domain",
    [
        "a..b", "a..", ".a", "..", "a.\u3002", "-a.b", "a-.b", "a b", "a_b", "*.example.com", "a" * 64, ".".join(["a" * 63] * 4),
        "a.\u265a", "xn--", "xn--a", "xn--99999999", "\ud800", "a\0", "\u200d.com", "a\u00e0-.com",
        "\u05d0a.com", "[1.2.3.4]", "[]", "[", "[::1", "::1", "[::1%eth0]", "[fe80::1%a@b]", "[v1.a]", "[::g]", "a:5222",
    ],
)  # fmt: skip
def test_texts_that_are_no_domain(domain: str) -> None:
    with pytest.raises(JidError):
        JID.of("", domain)


# --- resources: OpaqueString (RFC 7622, 3.4)


@pytest.mark.parametrize(
    ("resource", "prepared"),
    [
        ("Balcony", "Balcony"),
        ("a/b@c", "a/b@c"),
        ("\"&':<>", "\"&':<>"),
        ("\u00a0a\u2003b\u3000", " a b "),  # every space is SPACE
        ("e\u0301", "\u00e9"),
        ("\uff21", "\uff21"),  # no width mapping
        ("\u2163", "\u2163"),
        ("\U0001f600", "\U0001f600"),
        ("a\u05d0", "a\u05d0"),  # no Bidi Rule
    ],
)
def test_resources_keep_their_case(resource: str, prepared: str) -> None:
    assert parse(f"juliet@example.com/{resource}").resource == prepared
    assert JID.of("", "example.com", prepared).resource == prepared


@pytest.mark.parametrize(
    "resource", ["\0", "a\tb", "\n", "\x7f", "\u0080", "\u200b", "\u2028", "\ud800", "\ufdd0", "\U000e0001"]
)
def test_characters_that_no_resource_has(resource: str) -> None:
    with pytest.raises(JidError):
        parse(f"juliet@example.com/{resource}")


# --- lengths


@pytest.mark.parametrize("character", ["a", "A", "\u00e9", "\u4e2d", "\U00020000"])
def test_a_part_has_at_most_1023_bytes(character: str) -> None:
    size = len(character.encode())
    most, spare = character * (1023 // size), 1023 % size
    assert len(JID.of(most + "a" * spare, "b").local.encode()) == 1023  # RFC 7622, 3.3
    assert len(JID.of("a", "b", most + "a" * spare).resource.encode()) == 1023
    with pytest.raises(JidError):
        JID.of(most + "a" * (spare + 1), "b")
    with pytest.raises(JidError):
        JID.of("a", "b", most + "a" * (spare + 1))


def test_the_length_is_that_of_the_prepared_part() -> None:
    assert parse("e\u0301" * 511 + "@b").local == "\u00e9" * 511  # 1,533 bytes as written
    with pytest.raises(JidError):
        parse("\u0130" * 400 + "@b")  # 800 bytes as written, 1,200 when lowered


@pytest.mark.parametrize("huge", ["a" * 3_072, "a@b/" + "\u00e9" * 1_000_000, "@" * 5_000, "\0" * 100_000])
def test_what_is_too_long_for_any_jid_is_not_looked_at(huge: str) -> None:
    before = jid._parse.cache_info(), jid._prepare.cache_info()
    for function in (parse, prepare, JID.parse):
        with pytest.raises(JidError, match="at most 3,071"):
            function(huge)
    assert (jid._parse.cache_info(), jid._prepare.cache_info()) == before


def test_the_longest_jid_is_one() -> None:
    domain = ".".join(["d" * 62] * 4)
    longest = "a" * 1023 + "@" + domain + "/" + "r" * 1023
    assert prepare(longest) == longest


# --- all of it


def test_preparing_is_parsing_and_writing() -> None:
    for text, parts in VALID:
        assert prepare(text) == str(JID(*parts)) == str(JID.parse(text))
    with pytest.raises(JidError):
        prepare("juliet@")


def test_the_cache_keeps_what_differs_apart() -> None:
    texts = ["a@b/C", "A@b/C", "a@b/c", "a@b", "b/C", "a@B", "a@b/c ", "\u00e9@b", "e\u0301@b", "e@b"]
    for _ in range(2):
        assert [prepare(text) for text in texts] == [
            "a@b/C", "a@b/C", "a@b/c", "a@b", "b/C", "a@b", "a@b/c ", "\u00e9@b", "\u00e9@b", "e@b",
        ]  # fmt: skip
        for _ in range(2):
            with pytest.raises(JidError):
                prepare("a@b@c")


def test_a_refusal_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[str] = []

    class Profile:
        def enforce(self, local: str) -> str:
            prepared.append(local)
            raise UnicodeError

    monkeypatch.setattr(jid, "_USERNAME", Profile())
    reasons = set()
    for function in (parse, prepare, JID.parse, parse):
        with pytest.raises(JidError) as caught:
            function("never-asked-before-\u2163@example.com")
        reasons.add(str(caught.value))
    assert prepared == ["never-asked-before-\u2163"]
    assert reasons == {"The localpart has characters that are not allowed."}


def test_refusals_are_bounded_and_the_oldest_are_forgotten() -> None:
    for number in range(jid.REFUSED + 1):
        with pytest.raises(JidError):
            parse(f"{number}@@")
    assert len(jid._refused) == jid.REFUSED
    assert "0@@" not in jid._refused
    assert f"{jid.REFUSED}@@" in jid._refused


@pytest.mark.parametrize("part", ["{}@b", "b/{}", "{}"])
def test_a_part_that_is_too_long_is_not_prepared(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_USERNAME", "_OPAQUE", "idna"):
        monkeypatch.setattr(jid, name, None)
    with pytest.raises(JidError, match=r"longer than 1,023 bytes"):
        parse(part.format("\u00e9" * 1_024))


def test_the_caches_are_bounded() -> None:
    assert jid._parse.cache_info().maxsize == jid._prepare.cache_info().maxsize == jid.CACHED


def test_parts_of_a_jid() -> None:
    full, bare, host = parse("juliet@example.com/a@b/c"), parse("juliet@example.com"), parse("example.com")
    assert (full.bare, bare.bare, host.bare) == ("juliet@example.com", "juliet@example.com", "example.com")
    assert (full.is_bare, bare.is_bare, host.is_bare) == (False, True, True)
    assert full.bare_jid == bare == bare.bare_jid
    assert parse("example.com/x").bare_jid == host
    assert str(full) == "juliet@example.com/a@b/c"


@pytest.mark.parametrize("text", [text for text, _ in VALID] + ["[::1]/a@b/c", "a@[::1]"])
def test_parts_of_a_prepared_address(text: str) -> None:
    address = parse(text)
    prepared = str(address)
    assert bare_of(prepared) == address.bare
    assert local_of(prepared) == address.local
    assert domain_of(prepared) == address.domain
    assert resource_of(prepared) == address.resource


def test_an_error_is_a_value_error_of_ours() -> None:
    for kind in (ValueError, XmppError):
        with pytest.raises(kind):
            parse("")


ODD = "aAzZ09.-_@/:[]%\\ \0\u00ad\u00df\u0130\u0131\u0301\u0345\u03a3\u03c2\u05d0\u0660\u1e9e\u200c\u200d\u2163\u3002\ufb01\uff0e\uff20\uff2c\ud800\U0001f600"
PART = st.one_of(
    st.text(max_size=8), st.text(st.sampled_from(ODD), max_size=8), st.text(st.characters(codec=None), max_size=4)
)


@given(
    st.one_of(PART, st.builds("{}@{}/{}".format, PART, PART, PART), st.builds("{}@example.com/{}".format, PART, PART))
)
def test_any_text_is_a_jid_or_a_jid_error(text: str) -> None:
    try:
        address = parse(text)
    except JidError:
        return
    assert parse(str(address)) == address, "what is prepared stays as it is"
    assert JID.of(*address) == address
    assert prepare(text) == prepare(prepare(text)) == str(address)
    assert all(len(part.encode()) <= jid.PART_BYTES for part in address)
    assert (local_of(str(address)), domain_of(str(address)), resource_of(str(address))) == address
