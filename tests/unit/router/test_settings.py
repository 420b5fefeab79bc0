"""What turns read of the configuration."""

from __future__ import annotations

import pytest

from cluster.config import Authentication, Config, Rooms, Server
from cluster.process import CannotStart
from router.settings import Guests, from_config


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
