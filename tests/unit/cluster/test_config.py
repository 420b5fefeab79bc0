"""The configuration: layers, sources, and every problem told at once with its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from cluster.config import Config, ConfigError, Problem, is_secret, keys, load, to_toml


def problems(*overrides: str, file: Path | None = None, env: dict[str, str] | None = None) -> dict[str, Problem]:
    with pytest.raises(ConfigError) as caught:
        load(file, overrides, env or {})
    return {problem.key: problem for problem in caught.value.problems}


def written(directory: Path, text: str) -> Path:
    file = directory / "stentor.toml"
    file.write_text(text)
    return file


def test_without_anything_the_defaults_hold() -> None:
    config = load(env={})
    assert config.server.domains == ("localhost",)
    assert config.tls.c2s == "required"
    assert config.archive.default == "always"
    assert config.registration.mode == "closed"
    assert config.limits.enabled
    assert config.resume.timeout_s == 600
    assert config.source_of("tls.c2s") == "default"


def test_environment_wins_over_file_key_by_key_and_set_over_both(tmp_path: Path) -> None:
    file = written(tmp_path, '[c2s]\nport = 1000\ntls_port = 1001\ndepth = 20\n[server]\ndomains = ["a.example"]\n')
    env = {"STENTOR_C2S__TLS_PORT": "2001", "STENTOR_C2S__DEPTH": "30", "HOME": "/root"}
    config = load(file, ["c2s.depth=40"], env)
    assert (config.c2s.port, config.c2s.tls_port, config.c2s.depth) == (1000, 2001, 40)
    assert config.server.domains == ("a.example",)
    assert config.source_of("c2s.port") == str(file)
    assert config.source_of("c2s.tls_port") == "environment variable STENTOR_C2S__TLS_PORT"
    assert config.source_of("c2s.depth") == "--set"


def test_lists_and_tables_are_json_outside_the_file() -> None:
    config = load(
        None,
        ['tls.certificates={"a.example": {"certificate": "/a.pem", "key": "/a.key"}}'],
        {"STENTOR_SERVER__DOMAINS": '["a.example", "b.example"]'},
    )
    assert config.server.domains == ("a.example", "b.example")
    assert config.tls.certificates["a.example"].key == Path("/a.key")
    assert "JSON" in problems(env={"STENTOR_SERVER__DOMAINS": "a,b"})["server.domains"].message


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    file = written(
        tmp_path, 'loose = 1\n[c2s]\nport = 70000\nlistne = ["::"]\n[domains]\nx = 1\n[tls]\nc2s = "maybe"\n'
    )
    env = {"STENTOR_WHAT__X": "1", "STENTOR_BUS__PORT": "many"}
    found = problems("resume.timeout_s=-1", "nonsense", file=file, env=env)
    assert set(found) == {
        "loose", "domains", "c2s.port", "c2s.listne", "tls.c2s", "what.x", "bus.port", "resume.timeout_s", "nonsense",
    }  # fmt: skip
    assert found["c2s.port"].source == str(file)
    assert "70000" in found["c2s.port"].message
    assert found["bus.port"].source == "environment variable STENTOR_BUS__PORT"
    assert found["resume.timeout_s"].source == "--set"


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("c2s.prot", "c2s.port"),
        ("tls.c2", "tls.c2s"),
        ("resume.timeout", "resume.timeout_s"),
        ("log.levle", "log.level"),
    ],
)
def test_an_unknown_key_is_told_with_the_one_that_was_meant(wrong: str, meant: str) -> None:
    assert meant in problems(f"{wrong}=1")[wrong].remedy


@pytest.mark.parametrize("name", ["STENTOR_C2S", "STENTOR_C2S__PORT__X", "STENTOR_", "STENTOR_PORT", "STENTOR_NO__PE"])
def test_every_variable_with_the_prefix_must_be_a_setting(name: str) -> None:
    assert problems(env={name: "1"})


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    assert "does not exist" in problems(file=tmp_path / "none.toml")[""].message
    broken = problems(file=written(tmp_path, "[c2s\n"))[""]
    assert "not TOML" in broken.message
    assert broken.source == str(tmp_path / "stentor.toml")


def test_a_secret_is_shown_nowhere(tmp_path: Path) -> None:
    config = load(
        None, ["admin.token=hunter2", "database.url=postgresql://u:hunter2@h/d", "bus.secret_key=hunter2"], {}
    )
    assert "hunter2" not in repr(config)
    file = written(tmp_path, '[admin]\ntoken = ["hunter2"]\n')
    assert "hunter2" not in str(problems(file=file)["admin.token"])
    short = 'components.domains={"irc.example": {"secret": "hunter2"}}'
    assert "hunter2" not in str(problems(short)["components.domains.irc.example.secret"])
    misplaced = 'components.domains={"irc.example": "hunter2"}'
    assert "hunter2" not in str(problems(misplaced)["components.domains.irc.example"])
    assert "hunter2" not in repr(load(None, [short.replace("hunter2", "hunter2 hunter2")], {}))
    service = 'calls.services={"turn": {"type": "turn", "host": "h", "secret": "hunter2"}}'
    assert "hunter2" not in repr(load(None, [service], {}))
    assert "hunter2" not in str(problems(service.replace("}}", ', "username": "u"}}'))["calls.services.turn"])
    callout = 'authentication.domains={"example.org": {"backend": "http", "url": "https://h", "secret": "hunter2"}}'
    assert "hunter2" not in repr(load(None, [callout], {}))
    assert "hunter2" not in str(problems(callout.replace("https", "ftp"))["authentication.domains.example.org.url"])
    assert "hunter2" not in repr(load(None, ["upload.s3_access_key=a", "upload.s3_secret_key=hunter2"], {}))
    assert "hunter2" not in str(problems("upload.s3_secret_key=hunter2")["upload"])
    secrets = {
        "admin.token", "authentication.domains", "database.url", "bus.secret_key", "components.domains",
        "calls.services", "upload.s3_access_key", "upload.s3_secret_key",
    }  # fmt: skip
    assert {key for key in keys() if is_secret(key)} == secrets


def test_what_a_component_may_do_for_users() -> None:
    """XEP-0356."""

    def component(privileges: str) -> str:
        return f'components.domains={{"irc.example": {{"secret": "12345678", "privileges": {privileges}}}}}'

    given = load(None, [component('{"roster": "get", "presence": "roster", "iq": {"urn:x": "both"}}')], {})
    privileges = given.components.domains["irc.example"].privileges
    assert (privileges.roster, privileges.message, privileges.presence) == ("get", "none", "roster")
    assert privileges.iq == {"urn:x": "both"}
    wrong = problems(component('{"roster": "set", "presence": "roster"}'))
    assert "needs roster" in str(wrong["components.domains.irc.example.privileges"])
    assert problems(component('{"iq": {"urn:x": "none"}}'))


def test_a_certificate_needs_its_key() -> None:
    assert problems("tls.certificate=/a.pem")["tls"].remedy
    assert load(None, ["tls.certificate=/a.pem", "tls.key=/a.key"], {}).tls.key == Path("/a.key")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("node", "name", '"a/b"'),
        ("node", "name", '""'),
        ("node", "runtime_dir", "1"),
        ("server", "domains", "[]"),
        ("server", "domains", '"a.example"'),
        ("server", "show_os", '"perhaps"'),
        ("c2s", "port", "0"),
        ("c2s", "stanza_bytes", "9999"),  # RFC 6120, 13.12: at least 10,000
        ("c2s", "sasl_tries", "1"),  # RFC 6120, 6.4.5: at least 2
        ("c2s", "listen", "[]"),
        ("c2s", "login_timeout_s", "0"),
        ("c2s", "login_timeout_s", "nan"),
        ("c2s", "login_timeout_s", "inf"),
        ("bus", "transport", '"udp"'),
        ("bus", "seeds", '["router-0"]'),
        ("bus", "seeds", '["tcp://router-0:7400"]'),
        ("bus", "seeds", '["router-0:0"]'),
        ("bus", "seeds", '["router-0:7400", ""]'),
        ("bus", "dead_after_s", "0.9"),
        ("bus", "dead_after_s", "-1"),
        ("bus", "public_keys", '"all"'),
        ("database", "pool_max", "1"),
        ("database", "pool_max", '"eight"'),
        ("log", "level", '"loud"'),
        ("run", "c2s", "0"),
        ("registration", "mode", '"maybe"'),
    ],
)
def test_nonsense_is_told_with_file_key_and_remedy(tmp_path: Path, section: str, key: str, value: str) -> None:
    file = written(tmp_path, f"[{section}]\n{key} = {value}\n")
    found = problems(file=file)
    (place,) = found
    assert place.startswith(f"{section}.{key}"), "it may name an item of a list"
    problem = found[place]
    assert problem.source == str(file)
    assert problem.message
    description = keys()[f"{section}.{key}"].description
    assert problem.remedy == f"It is: {description}"
    assert str(problem) == f"{file}: {place}: {problem.message}. {problem.remedy}"


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["bus.transport=ipc", 'bus.seeds=["router-0:7400"]'], "bus.seeds"),
        (["bus.heartbeat_s=1.5"], "bus.dead_after_s"),
        (["database.pool_min=9"], "database.pool_max"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_told(overrides: list[str], key: str) -> None:
    assert set(problems(*overrides)) == {key}


@pytest.mark.parametrize(
    "overrides",
    [
        ['bus.seeds=["router-0.example:7400", "192.0.2.1:1", "[2001:db8::1]:65535"]'],
        ["bus.transport=ipc", 'bus.seeds=["router-0"]'],
        ["bus.heartbeat_s=1", "bus.dead_after_s=2"],
        ["database.pool_min=8", "database.pool_max=8"],
    ],
)
def test_settings_that_fit_are_taken(overrides: list[str]) -> None:
    load(None, overrides, {})


def test_settings_are_frozen() -> None:
    config = load(env={})
    with pytest.raises(ValidationError):
        config.c2s.port = 1


def test_every_setting_says_what_it_is() -> None:
    assert [key for key, field in keys().items() if not field.description] == []


def test_the_file_written_is_read_back_to_the_same_values(tmp_path: Path) -> None:
    config = load(
        None,
        [
            'server.domains=["ü.example", "\\"quoted\\""]',
            'tls.certificates={"a.b": {"certificate": "/c", "key": "/k"}}',
            "admin.token=a\\b\"c'\x7f",
            "c2s.keepalive_s=0.5",
            "limits.enabled=false",
        ],
        {},
    )
    again = load(written(tmp_path, to_toml(config)), (), {})
    assert again.model_dump() == config.model_dump()
    assert isinstance(again, Config)


def test_a_domain_has_its_own_certificate_or_the_common_one() -> None:
    own = 'tls.certificates={"b.example": {"certificate": "b.crt", "key": "b.key"}}'
    b = (Path("b.crt"), Path("b.key"))
    assert load(None, [], {}).tls.pairs(["a.example"]) == {}
    assert load(None, [own], {}).tls.pairs(["a.example", "b.example"]) == {"b.example": b}
    common = ["tls.certificate=all.crt", "tls.key=all.key"]
    pairs = load(None, [own, *common], {}).tls.pairs(["a.example", "b.example"])
    assert pairs == {"a.example": (Path("all.crt"), Path("all.key")), "b.example": b}
