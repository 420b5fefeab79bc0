"""Which errors mean "away", and what a connection string becomes."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import PoolClosed, PoolTimeout

from storage.pool import StorageError, Timeouts, classify, conninfo, is_away


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.OperationalError("the connection is closed"), "connection"),
        (PoolTimeout("couldn't get a connection"), "connection"),
        (PoolClosed("closed"), "connection"),
        (ConnectionResetError(), "connection"),
        (errors.lookup("57P01")(), "connection"),  # admin_shutdown
        (errors.lookup("57P03")(), "connection"),  # cannot_connect_now
        (errors.lookup("08006")(), "connection"),
        (errors.lookup("53100")(), "resources"),  # disk_full
        (errors.lookup("53300")(), "resources"),  # too_many_connections
        (errors.lookup("58030")(), "resources"),  # io_error
        (errors.lookup("25006")(), "read_only"),
        (errors.lookup("57014")(), "timeout"),  # statement timeout
        (errors.lookup("55P03")(), "timeout"),  # lock timeout
        (errors.lookup("40P01")(), "conflict"),  # deadlock
        (errors.lookup("40001")(), "conflict"),
    ],
)
def test_what_may_succeed_later_is_away(error: Exception, kind: str) -> None:
    assert classify(error) == kind
    assert is_away(error)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.lookup("23514")(), "data"),  # check_violation
        (errors.lookup("22021")(), "data"),  # character_not_in_repertoire
        (errors.lookup("42P01")(), "other"),  # undefined_table
        (errors.lookup("25001")(), "other"),
        (psycopg.ProgrammingError("bad"), "other"),
        (psycopg.DataError("NUL"), "data"),
        (ValueError("a bug"), "other"),
    ],
)
def test_what_cannot_succeed_later_is_not(error: Exception, kind: str) -> None:
    assert classify(error) == kind
    assert not is_away(error)


def test_what_the_url_leaves_out_is_added() -> None:
    found = conninfo_to_dict(conninfo("postgresql://u:p@db:5433/x", "router-0", Timeouts(2.5, 4, 0.5)))
    assert (found["host"], found["port"], found["dbname"], found["password"]) == ("db", "5433", "x", "p")
    assert found["connect_timeout"] == "3"
    assert found["application_name"] == "stentor router-0"
    assert found["target_session_attrs"] == "read-write"
    assert found["keepalives_idle"] == "10"
    options = str(found["options"])
    assert "statement_timeout=4000" in options
    assert "idle_in_transaction_session_timeout=4000" in options
    assert "lock_timeout=500" in options


def test_what_the_url_says_is_kept() -> None:
    url = "postgresql:///x?target_session_attrs=any&application_name=mine&options=-c%20work_mem%3D8MB"
    found = conninfo_to_dict(conninfo(url, "router-0", Timeouts()))
    assert found["target_session_attrs"] == "any"
    assert found["application_name"] == "mine"
    assert str(found["options"]).endswith("-c work_mem=8MB")
    assert "lock_timeout=5000" in str(found["options"])


def test_a_url_that_is_none_is_an_operators_error() -> None:
    with pytest.raises(StorageError, match=r"database\.url is no connection string: .*Write postgresql://"):
        conninfo("postgresql://u:p@db:x=y/?a", "router-0", Timeouts())
