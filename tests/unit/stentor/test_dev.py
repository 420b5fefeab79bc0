"""The settings of a development cluster: what was asked for wins over what development prefers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.config import load
from cluster.keys import Keys
from cluster.supervisor import members
from stentor.dev import Options, data_directory, has_tcp_bus, runtime_directory, settings, with_uploads
from stentor.failure import Failed
from stentor.server import over_tcp

PLAIN = Options(
    data=None, domains=(), users=(), admins=(), c2s=2, router=2, s2s=1, listen=(), port_offset=0, tls=None,
    database_url=None, config_file=None, overrides=(),
)  # fmt: skip


def test_without_options_only_this_machine_may_connect() -> None:
    config = settings(PLAIN)
    assert config.c2s.listen == config.s2s.listen == config.components.listen == ("127.0.0.1",)
    assert config.server.domains == ("localhost",)
    assert (config.c2s.port, config.c2s.tls_port, config.admin.port, config.admin.api_port) == (5222, 5223, 9100, 5281)
    assert config.drain.window_s < 1
    assert len(config.admin.token) >= 32


def test_each_start_has_its_own_token_unless_one_is_configured() -> None:
    assert settings(PLAIN).admin.token != settings(PLAIN).admin.token
    assert settings(replace(PLAIN, overrides=("admin.token=mine",))).admin.token == "mine"


def test_the_offset_shifts_every_port_also_configured_ones() -> None:
    config = settings(replace(PLAIN, port_offset=1000, overrides=("c2s.port=6000",)))
    assert (config.c2s.port, config.c2s.tls_port, config.admin.port, config.admin.api_port) == (7000, 6223, 10100, 6281)
    assert (config.s2s.port, config.s2s.tls_port, config.components.port) == (6269, 6270, 6347)
    assert config.bus.port == 8400


def test_options_and_set_win_over_what_development_prefers() -> None:
    options = replace(
        PLAIN, domains=("a.example", "b.example"), admins=("root@a.example",), listen=("127.0.0.2", "::1"),
        tls="optional", database_url="postgresql://h/d", overrides=("drain.window_s=7",),
    )  # fmt: skip
    config = settings(options)
    assert config.server.domains == ("a.example", "b.example")
    assert config.server.admins == ("root@a.example",)
    assert config.c2s.listen == config.s2s.listen == ("127.0.0.2", "::1")
    assert config.tls.c2s == "optional"
    assert config.database.url == "postgresql://h/d"
    assert config.drain.window_s == 7


def test_the_bus_uses_tcp_only_where_it_was_asked_for() -> None:
    assert not has_tcp_bus(settings(PLAIN))
    assert not has_tcp_bus(settings(replace(PLAIN, overrides=("bus.transport=ipc",))))
    assert has_tcp_bus(settings(replace(PLAIN, overrides=("bus.transport=tcp",))))


def test_over_tcp_each_process_has_a_port_and_each_role_a_key_pair() -> None:
    config = settings(replace(PLAIN, port_offset=100, overrides=("bus.transport=tcp", "node.advertise=127.0.0.2")))
    processes = over_tcp(config, members({"c2s": 2, "router": 2}, 9200))
    seen = [load(None, (), process.settings).bus for process in processes]
    assert [bus.port for bus in seen] == [7500, 7501, 7502, 7503]
    assert {(bus.transport, bus.seeds) for bus in seen} == {("tcp", ("127.0.0.2:7502", "127.0.0.2:7503"))}
    keys = [Keys.of(bus.secret_key, bus.public_keys.model_dump()) for bus in seen]
    assert all(key.of_role[process.role] == key.public for key, process in zip(keys, processes, strict=True))
    assert len({key.public for key in keys}) == 2
    assert config.bus.listen == "127.0.0.1"


def test_ports_that_the_offset_moves_too_far_are_wrong_configuration() -> None:
    with pytest.raises(Failed, match="admin") as caught:
        settings(replace(PLAIN, port_offset=50_000, overrides=("admin.port=60000",)))
    assert caught.value.exit_code == 2


def test_the_folder_follows_the_offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert data_directory(PLAIN) == tmp_path / "dev-data"
    assert data_directory(replace(PLAIN, port_offset=1000)) == tmp_path / "dev-data-1000"
    assert data_directory(replace(PLAIN, data="here")) == tmp_path / "here"
    (tmp_path / "file").touch()
    with pytest.raises(Failed, match="--data"):
        data_directory(replace(PLAIN, data="file"))


def test_the_runtime_folder_is_short_and_one_per_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    deep = Path("/" + "/".join(["x" * 60] * 5))
    assert len(str(runtime_directory(deep) / "router-0.bus")) < 107
    assert runtime_directory(deep) == runtime_directory(deep)
    assert runtime_directory(deep) != runtime_directory(deep / "b")


def test_files_are_uploaded_into_the_folder_unless_somebody_says_where(tmp_path: Path) -> None:
    def storage(*overrides: str) -> str:
        return with_uploads(settings(replace(PLAIN, overrides=overrides)), tmp_path).upload.storage

    assert storage() == f"{tmp_path}/uploads"
    assert storage("upload.storage=/elsewhere") == "/elsewhere"
    assert storage("upload.storage=") == ""
    assert storage("http.enabled=false") == ""
