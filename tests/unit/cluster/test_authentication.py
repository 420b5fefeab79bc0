"""The settings of back ends (cluster/authentication.py): what cannot be is told by key, cause and remedy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cluster.config import Config, ConfigError, Problem, load, to_toml

LDAP = {"backend": "ldap", "servers": ["ldaps://ldap.example.org"], "dn": "uid={user},dc=example"}
JWT = {"backend": "jwt", "issuer": "https://id.example.org", "audience": ["xmpp"]}
HTTP = {"backend": "http", "url": "https://auth.example.org/check"}
GUESTS = {"backend": "anonymous"}


def loaded(backend: dict[str, Any]) -> Config:
    return load(None, [f"authentication.domains={json.dumps({'example.org': backend})}"], {})


def problem(backend: dict[str, Any], *without: str, **changed: Any) -> Problem:
    """The one thing that is wrong."""
    given = {name: value for name, value in {**backend, **changed}.items() if name not in without}
    with pytest.raises(ConfigError) as error:
        loaded(given)
    (found,) = error.value.problems
    assert found.source == "--set"
    assert found.remedy
    assert found.key.startswith("authentication.domains.example.org")
    return found


def test_passwords_are_kept_here_unless_the_domain_says_otherwise() -> None:
    config = loaded(LDAP)
    assert config.authentication.of("example.org").backend == "ldap"
    assert config.authentication.of("example.com").backend == "internal"
    assert loaded({"backend": "internal"}).authentication.of("example.org").backend == "internal"


@pytest.mark.parametrize("backend", [LDAP, JWT, HTTP, GUESTS])
def test_a_file_is_read_back_to_the_same(backend: dict[str, Any], tmp_path: Any) -> None:
    config = loaded(backend)
    file = tmp_path / "stentor.toml"
    file.write_text(to_toml(config))
    assert load(file, [], {}).authentication == config.authentication


@pytest.mark.parametrize(
    ("backend", "changed", "key", "message"),
    [
        (LDAP, {"servers": ["ldap.example.org"]}, "servers", "is not the address of a directory"),
        (LDAP, {"servers": ["ldaps://h/dc=x"]}, "servers", "is not the address of a directory"),
        (LDAP, {"dn": "uid=user"}, "dn", "{user} is missing"),
        (LDAP, {"dn": "uid={user},o={realm}"}, "dn", "{realm} stands for nothing"),
        (LDAP, {"base": "dc=example"}, "dn", "and not both"),
        (LDAP, {"dn": ""}, "dn", "one of base and dn is needed"),
        (LDAP, {"bind_dn": "cn=search"}, "bind_password", "one of bind_dn and bind_password is missing"),
        (LDAP, {"bind_password": "x"}, "bind_password", "one of bind_dn and bind_password is missing"),
        (LDAP, {"timeout_s": 60}, "timeout_s", "less than or equal to 8"),
        (JWT, {"issuer": "http://id.example.org"}, "secret", "so no keys are found there"),
        (JWT, {"jwks": "http://id.example.org/keys"}, "jwks", "is no https:// address"),
        (JWT, {"jwks": "https://[/"}, "jwks", "is no https:// address"),
        (JWT, {"algorithms": ["HS256"]}, "secret", "there is no secret"),
        (JWT, {"secret": "x" * 32}, "secret", "which is not made with a secret"),
        (JWT, {"secret": "x" * 31, "algorithms": ["HS256"]}, "secret", "shorter than 32 bytes"),
        (JWT, {"secret": "x" * 32, "algorithms": ["HS256"], "key": "k.pem"}, "secret", "exclude each other"),
        (JWT, {"algorithms": ["HS256", "RS256"]}, "secret", "there is no secret"),
        (HTTP, {"url": "http://auth.example.org/"}, "url", "is no https:// address"),
        (HTTP, {"url": "https://"}, "url", "is no https:// address"),
        (GUESTS, {"sessions": 0}, "sessions", "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_is_told(backend: dict[str, Any], changed: dict[str, Any], key: str, message: str) -> None:
    found = problem(backend, **changed)
    assert found.key == f"authentication.domains.example.org.{key}"
    assert message in found.message
    assert found.remedy.startswith("It is: ")


@pytest.mark.parametrize("algorithm", ["none", "None", "RS1", ""])
def test_no_signature_is_no_signature(algorithm: str) -> None:
    assert problem(JWT, algorithms=["RS256", algorithm]).key.startswith("authentication.domains.example.org.algorithms")


@pytest.mark.parametrize(("backend", "name"), [(LDAP, "servers"), (JWT, "issuer"), (JWT, "audience"), (HTTP, "url")])
def test_what_is_missing_is_told(backend: dict[str, Any], name: str) -> None:
    assert problem(backend, name).key == f"authentication.domains.example.org.{name}"


def test_a_name_that_is_no_setting_is_told_with_what_was_meant() -> None:
    assert problem(HTTP, uri="https://h/").remedy == "Did you mean url?"
    assert problem(HTTP, whatever=1).remedy == "The back end http has: change, ca, backend, url, secret, timeout_s"


@pytest.mark.parametrize("backend", [{}, {"backend": "kerberos"}, {"backend": 1}])
def test_a_back_end_that_there_is_not_is_told(backend: dict[str, Any]) -> None:
    found = problem(backend)
    assert found.key == "authentication.domains.example.org"
    assert "internal" in found.remedy


def test_a_service_on_this_machine_may_be_without_encryption() -> None:
    for host in ("127.0.0.1:8080", "[::1]:8080", "localhost"):
        loaded({**HTTP, "url": f"http://{host}/check"})
