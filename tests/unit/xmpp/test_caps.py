"""Entity capabilities (XEP-0115, XEP-0390): what is hashed, and which answers are believed."""

from __future__ import annotations

import pytest
from lxml import etree

from tests.support.turns import parse
from xmpp import ns
from xmpp.caps import Caps, IllFormed, info_of, is_borne_out, of_presence

# XEP-0115, 5.2 and 5.3: the examples of the specification.
SIMPLE = (
    '<identity category="client" type="pc" name="Exodus 0.9.1"/>'
    + "".join(
        f'<feature var="http://jabber.org/protocol/{name}"/>' for name in ("caps", "disco#info", "disco#items", "muc")
    ),
    "QgayPKawpkPSDYmwT/WM94uAlu0=",
)
COMPLEX = (
    '<identity xml:lang="en" category="client" name="Psi 0.11" type="pc"/>'
    '<identity xml:lang="el" category="client" name="\u03a8 0.11" type="pc"/>'
    + "".join(
        f'<feature var="http://jabber.org/protocol/{name}"/>' for name in ("caps", "disco#info", "disco#items", "muc")
    )
    + '<x xmlns="jabber:x:data" type="result">'
    '<field var="FORM_TYPE" type="hidden"><value>urn:xmpp:dataforms:softwareinfo</value></field>'
    '<field var="ip_version"><value>ipv4</value><value>ipv6</value></field>'
    '<field var="os"><value>Mac</value></field><field var="os_version"><value>10.5.1</value></field>'
    '<field var="software"><value>Psi</value></field><field var="software_version"><value>0.11</value></field></x>',
    "q07IKJEyjvHSyhy//CH0CxmKi8w=",
)
# XEP-0390, 4.5.2: the complex example.
_PROTOCOL = (
    "activity", "activity+notify", "bytestreams", "chatstates", "commands", "disco#info", "disco#items", "evil",
    "feature-neg", "geoloc", "geoloc+notify", "ibb", "iqibb", "mood", "mood+notify", "rosterx", "si",
    "si/profile/file-transfer", "tune",
)  # fmt: skip
_OTHERS = (
    "games:board", "http://www.facebook.com/xmpp/messages",
    "http://www.xmpp.org/extensions/xep-0084.html#ns-metadata+notify", "jabber:iq:avatar", "jabber:iq:browse",
    "jabber:iq:dtcp", "jabber:iq:filexfer", "jabber:iq:ibb", "jabber:iq:inband", "jabber:iq:jidlink", "jabber:iq:last",
    "jabber:iq:oob", "jabber:iq:privacy", "jabber:iq:roster", "jabber:iq:time", "jabber:iq:version", "jabber:x:data",
    "jabber:x:event", "jabber:x:oob", "urn:xmpp:avatar:metadata+notify", "urn:xmpp:ping", "urn:xmpp:receipts",
    "urn:xmpp:time",
)  # fmt: skip
SECOND = (
    '<identity category="client" name="Tkabber" type="pc" xml:lang="en"/>'
    '<identity category="client" name="Ткаббер" type="pc" xml:lang="ru"/>'
    + "".join(f'<feature var="http://jabber.org/protocol/{name}"/>' for name in _PROTOCOL)
    + "".join(f'<feature var="{name}"/>' for name in _OTHERS)
    + '<x xmlns="jabber:x:data" type="result">'
    '<field type="hidden" var="FORM_TYPE"><value>urn:xmpp:dataforms:softwareinfo</value></field>'
    '<field var="software"><value>Tkabber</value></field>'
    '<field var="software_version"><value>0.11.1-svn-20111216-mod (Tcl/Tk 8.6b2)</value></field>'
    '<field var="os"><value>Windows</value></field><field var="os_version"><value>XP</value></field></x>'
)
SECOND_HASHES = {
    "sha-256": "u79ZroNJbdSWhdSp311mddz44oHHPsEBntQ5b1jqBSY=",
    "sha3-256": "XpUJzLAc93258sMECZ3FJpebkzuyNXDzRNwQog8eycg=",
}


def query(inner: str) -> etree._Element:
    return etree.fromstring(f'<query xmlns="{ns.DISCO_INFO}">{inner}</query>')


@pytest.mark.parametrize(("inner", "ver"), [SIMPLE, COMPLEX])
def test_an_answer_with_the_hash_is_believed(inner: str, ver: str) -> None:
    caps = Caps("sha-1", ver, f"node#{ver}")
    assert is_borne_out(caps, info_of(query(inner)))
    assert not is_borne_out(caps, info_of(query(inner + '<feature var="urn:x+notify"/>')))
    assert not is_borne_out(caps._replace(ver=ver[:-3] + "xx="), info_of(query(inner)))
    assert not is_borne_out(caps._replace(ver="no base64"), info_of(query(inner)))
    assert not is_borne_out(caps._replace(algorithm=None), info_of(query(inner)))


@pytest.mark.parametrize(("algorithm", "ver"), SECOND_HASHES.items())
def test_the_second_version_is_believed_likewise(algorithm: str, ver: str) -> None:
    caps = Caps(algorithm, ver, f"urn:xmpp:caps#{algorithm}.{ver}", is_second=True)
    assert is_borne_out(caps, info_of(query(SECOND)))
    assert not is_borne_out(caps, info_of(query(SECOND + '<feature var="urn:x+notify"/>')))
    assert not is_borne_out(caps._replace(is_second=False), info_of(query(SECOND)))


@pytest.mark.parametrize(
    "inner",
    [
        '<identity category="client" type="pc"/><identity category="client" type="pc"/>',
        '<feature var="a"/><feature var="a"/>',
        *['<x xmlns="jabber:x:data"><field var="FORM_TYPE" type="hidden"><value>a</value></field></x>' * 2],
        '<x xmlns="jabber:x:data"><field var="FORM_TYPE" type="hidden"><value>a</value><value>b</value></field></x>',
    ],
)
def test_answers_that_are_ill_formed(inner: str) -> None:
    """XEP-0115, 5.4, 3.3 to 3.5: attackers could hide something in what is there twice."""
    with pytest.raises(IllFormed):
        info_of(query(inner))


def test_a_form_without_a_type_does_not_count() -> None:
    """5.4, 3.6."""
    inner, ver = SIMPLE
    form = '<x xmlns="jabber:x:data"><field var="a"><value>b</value></field></x>'
    assert is_borne_out(Caps("sha-1", ver, ""), info_of(query(inner + form)))


C = '<c xmlns="http://jabber.org/protocol/caps" {} node="http://x" ver="abc="/>'
SECOND_C = (
    '<c xmlns="urn:xmpp:caps"><hash xmlns="urn:xmpp:hashes:2" algo="sha3-256">three=</hash>'
    '<hash xmlns="urn:xmpp:hashes:2" algo="sha-256">two=</hash></c>'
)


@pytest.mark.parametrize(
    ("inner", "found"),
    [
        ("", None),
        (C.format('hash="sha-1"'), Caps("sha-1", "abc=", "http://x#abc=")),
        (C.format(""), Caps(None, "abc=", "http://x#abc=")),
        (C.format('hash="md5"'), None),
        ('<c xmlns="http://jabber.org/protocol/caps" hash="sha-1" ver="abc="/>', None),
        ('<c xmlns="http://jabber.org/protocol/caps" hash="sha-1" node="n"/>', None),
        (SECOND_C, Caps("sha-256", "two=", "urn:xmpp:caps#sha-256.two=", is_second=True)),
        (SECOND_C + C.format('hash="sha-256"'), Caps("sha-256", "abc=", "http://x#abc=")),
        ('<c xmlns="urn:xmpp:caps"><hash xmlns="urn:xmpp:hashes:2" algo="sha-1">one=</hash></c>', None),
        ("<show>away</show>", None),
    ],
)
def test_what_a_presence_says(inner: str, found: Caps | None) -> None:
    assert of_presence(parse(f"<presence>{inner}</presence>")) == found


def test_a_name_stands_for_one_thing() -> None:
    """The two versions and the hash functions do not meet; a client without a hash has no name."""
    names = {Caps(a, "x", "n", s).name for a in ("sha-1", "sha-256") for s in (False, True)}
    assert len(names) == 4
    assert Caps(None, "x", "n").name == ""
