"""What turns read of the configuration."""

from __future__ import annotations

import pytest

from cluster.config import Authentication, Config, Rooms, Server, load
from cluster.process import CannotStart
from router.settings import Guests, Settings, from_config


def test_rooms_are_at_a_domain_of_each_domain() -> None:
    server = Server(domains=("example.com", "example.org"))
    settings = from_config(Config(server=server))
    assert settings.room_domains == {"conference.example.com", "conference.example.org"}
    settings = from_config(Config(server=server, rooms=Rooms(domains=("rooms.example.net",))))
    assert settings.room_domains == {"rooms.example.net"}


def test_a_new_room_is_as_the_settings_say() -> None:
    settings = from_config(Config(rooms=Rooms(defaults={"membersonly": "1", "presencebroadcast": "moderator"})))
    assert settings.room_defaults.membersonly
    assert settings.room_defaults.presencebroadcast == ("moderator",)


@pytest.mark.parametrize("options", [{"membersonly": "perhaps"}, {"nonsense": "1"}])
def test_a_default_that_cannot_be_ends_the_start_and_says_so(options: dict[str, str]) -> None:
    with pytest.raises(CannotStart, match=r"^rooms\.defaults: "):
        from_config(Config(rooms=Rooms(defaults=options)))


def uploads(*settings: str) -> Settings:
    return from_config(load(None, list(settings), {}))


def test_files_need_a_storage_and_a_url() -> None:
    assert uploads().uploads is None
    assert uploads("http.public_url=https://example.com").upload_domains == frozenset()
    for without in ((), ("http.public_url=https://example.com", "http.enabled=false")):
        with pytest.raises(CannotStart, match=r"^upload\.storage is set, but .* Set http\.public_url"):
            uploads("upload.storage=/srv/files", *without)
    two = uploads(
        "upload.storage=/srv/files", "http.public_url=https://chat.example.com", "upload.public_url=https://files.{domain}/",
        'server.domains=["a.example", "b.example"]', "limits.enabled=false",
    )  # fmt: skip
    assert two.upload_domains == {"upload.a.example", "upload.b.example"}
    assert two.uploads is not None
    assert (two.uploads.url, two.uploads.day_bytes) == ("https://files.{domain}", 0)


def test_the_upload_service_is_nothing_else() -> None:
    with pytest.raises(CannotStart, match=r"^upload\.domain: conference\.localhost, for localhost, is something else"):
        uploads("upload.storage=/f", "http.public_url=https://e.example", "upload.domain=conference.{domain}")


def test_domains_of_guests() -> None:
    domains = {"guest.example": {"backend": "anonymous", "per_address": 3}, "c.example": {"backend": "internal"}}
    settings = from_config(Config(authentication=Authentication.model_validate({"domains": domains})))
    assert settings.guests == {"guest.example": Guests(sessions=1_000, per_address=3, remote=False)}
    assert settings.passwords_elsewhere == {
        "guest.example": "Whoever signs in at guest.example is a guest, and has no password."
    }


def test_people_are_told_where_passwords_are_that_are_not_kept_here() -> None:
    http = {"backend": "http", "url": "https://h/"}
    domains = {"a.example": http, "b.example": {**http, "change": "https://id/"}, "c.example": {"backend": "internal"}}
    settings = from_config(Config(authentication=Authentication.model_validate({"domains": domains})))
    assert settings.passwords_elsewhere == {
        "a.example": "The passwords of a.example are not kept by this server. Ask who runs this server.",
        "b.example": "The passwords of b.example are not kept by this server. They are changed here: https://id/",
    }
