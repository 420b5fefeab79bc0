"""Documents in several files: none from elsewhere, and nothing that defines entities."""

from __future__ import annotations

from pathlib import Path

import pytest

from stentor.moving.documents import Document, parse
from stentor.moving.things import Unreadable
from stentor.moving.trees import Tree, Unwritable, write

XI = "xmlns:xi='http://www.w3.org/2001/XInclude'"


def tree(file: Path) -> Tree:
    document = Document(file)
    start = document.next()
    assert isinstance(start, tuple)
    return document.tree(start)


def test_what_is_included_stands_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "main.xml").write_text(f"<a {XI}>1<xi:include href='sub/b%20c.xml'>no</xi:include>2</a>")
    (tmp_path / "sub" / "b c.xml").write_text(f"<b xmlns='urn:b' {XI}><xi:include href='d.xml'/></b>")
    (tmp_path / "sub" / "d.xml").write_text("<d xmlns='urn:d'/>")
    assert write(tree(tmp_path / "main.xml")) == '<a>1<b xmlns="urn:b"><d xmlns="urn:d"/></b>2</a>'


@pytest.mark.parametrize(
    "href",
    [
        "../secret.xml",
        "/etc/passwd",
        "http://example.org/a.xml",
        "file:///etc/passwd",
        "sub/../../secret.xml",
        "link.xml",
        "",
    ],
)
def test_nothing_from_elsewhere_is_included(tmp_path: Path, href: str) -> None:
    (folder := tmp_path / "in").mkdir()
    (tmp_path / "secret.xml").write_text("<secret/>")
    (folder / "link.xml").symlink_to(tmp_path / "secret.xml")
    (folder / "main.xml").write_text(f"<a {XI}>\n<xi:include href='{href}'/></a>")
    with pytest.raises(Unreadable, match=r"main\.xml, line 2"):
        tree(folder / "main.xml")


def test_only_whole_documents_are_included(tmp_path: Path) -> None:
    (tmp_path / "b.xml").write_text("<b/>")
    for attributes in ("parse='text'", "xpointer='x'"):
        (tmp_path / "main.xml").write_text(f"<a {XI}><xi:include href='b.xml' {attributes}/></a>")
        with pytest.raises(Unreadable):
            tree(tmp_path / "main.xml")


def test_files_that_include_each_other_end_somewhere(tmp_path: Path) -> None:
    (tmp_path / "main.xml").write_text(f"<a {XI}><xi:include href='main.xml'/></a>")
    with pytest.raises(Unreadable, match="deep"):
        tree(tmp_path / "main.xml")


def test_entities_are_not_read(tmp_path: Path) -> None:
    file = tmp_path / "main.xml"
    for text in (
        "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>",
        "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>",
        "<!DOCTYPE a SYSTEM 'http://example.org/a.dtd'><a/>",
    ):
        file.write_text(text)
        with pytest.raises(Unreadable, match="DOCTYPE"):
            tree(file)
    file.write_text("<a>&x;</a>")
    with pytest.raises(Unreadable, match=r"main\.xml, line 1, column 3: undefined entity"):
        tree(file)


def test_an_error_says_where(tmp_path: Path) -> None:
    (tmp_path / "main.xml").write_text("<a>\n<b>\n</a>")
    with pytest.raises(Unreadable, match=r"main\.xml, line 3, column 2: mismatched tag"):
        tree(tmp_path / "main.xml")
    with pytest.raises(Unreadable, match=r"nowhere\.xml: No such file"):
        tree(tmp_path / "nowhere.xml")


def test_elements_within_elements_end_somewhere(tmp_path: Path) -> None:
    (tmp_path / "main.xml").write_text("<a>" * 5_000 + "</a>" * 5_000)
    with pytest.raises(Unreadable, match="deep"):
        tree(tmp_path / "main.xml")


def test_a_text_is_read_by_itself() -> None:
    read = parse("<a xmlns='urn:a' xml:lang='de' xmlns:p='urn:p' p:q='1'><b xmlns=''>&lt;é</b></a>", "here")
    assert write(read) == '<a xmlns="urn:a" xml:lang="de" xmlns:n1="urn:p" n1:q="1"><b xmlns="">&lt;é</b></a>'
    with pytest.raises(Unreadable):
        parse(f"<a {XI}><xi:include href='/etc/hostname'/></a>", "here")


@pytest.mark.parametrize(
    "bad",
    [
        Tree("", "a b"),
        Tree("", ""),
        Tree("", "a", {"b>": "x"}),
        Tree("", "a", {}, ["\0"]),
        Tree("", "a", {"b": "\udcff"}),
    ],
)
def test_what_cannot_be_xml_is_not_written(bad: Tree) -> None:
    with pytest.raises(Unwritable):
        write(bad)
