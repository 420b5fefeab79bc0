"""Declaring metrics, counting in plain integers, and the limits read from a cgroup."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from cluster import metrics


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_every_label_combination_is_there_from_the_start(registry: CollectorRegistry) -> None:
    labels = {"direction": ["in", "out"], "kind": ["message", "iq"]}
    metrics.counter("stentor_x_total", "X", labels, registry)
    metrics.gauge("stentor_y", "Y", labels, registry)
    metrics.histogram("stentor_z_seconds", "Z", labels, registry=registry)
    for direction in labels["direction"]:
        for kind in labels["kind"]:
            values = {"direction": direction, "kind": kind}
            for name in ("stentor_x_total", "stentor_y", "stentor_z_seconds_count"):
                assert registry.get_sample_value(name, values) == 0.0


def test_seconds_have_the_documented_buckets(registry: CollectorRegistry) -> None:
    metrics.histogram("stentor_z_seconds", "Z", registry=registry)
    found = {
        float(sample.labels["le"])
        for family in registry.collect()
        for sample in family.samples
        if sample.name.endswith("_bucket")
    }
    assert found == {*metrics.LATENCY_BUCKETS, float("inf")}


def test_a_sampled_counter_is_read_at_scrape_time(registry: CollectorRegistry) -> None:
    count = {"in": 0, "out": 5}
    metrics.sampled_counter(
        "stentor_s_total",
        "S",
        ("direction",),
        {("in",): lambda: count["in"], ("out",): lambda: count["out"]},
        registry,
    )
    metrics.sampled_gauge("stentor_g", "G", (), {(): lambda: 7}, registry)
    count["in"] = 3
    text = metrics.exposition(registry).decode()
    assert 'stentor_s_total{direction="in"} 3.0' in text
    assert 'stentor_s_total{direction="out"} 5.0' in text
    assert "stentor_g 7.0" in text
    assert "# TYPE stentor_s_total counter" in text


def test_a_counted_gauge_is_counted_once_for_each_scrape(registry: CollectorRegistry) -> None:
    scrapes: list[int] = []

    def count() -> dict[tuple[str, ...], float]:
        scrapes.append(1)
        return {("a", "x"): 2, ("b", "y"): 3}

    metrics.counted_gauge("stentor_n", "N", {"left": "ab", "right": "xy"}, count, registry)
    scrapes.clear()
    text = metrics.exposition(registry).decode()
    assert scrapes == [1]
    for labels, value in (('left="a",right="x"', 2), ('left="a",right="y"', 0), ('left="b",right="y"', 3)):
        assert f"stentor_n{{{labels}}} {value}.0" in text
    assert "# TYPE stentor_n gauge" in text


def test_the_process_tells_version_and_limits(registry: CollectorRegistry) -> None:
    metrics.declare_process_metrics(registry)
    text = metrics.exposition(registry).decode()
    assert f'stentor_build_info{{version="{metrics.software_version()}",wire="1"}} 1.0' in text
    assert (registry.get_sample_value("stentor_memory_limit_bytes") or 0) > 1 << 20
    assert (registry.get_sample_value("stentor_cpu_limit_cores") or 0) > 0


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "1048576\n"}, 1048576),
        ({"memory.max": "max\n"}, None),
        ({"memory/memory.limit_in_bytes": "2097152\n"}, 2097152),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ({}, None),
    ],
)
def test_memory_limit_is_the_cgroups_or_the_machines(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    write(tmp_path, files)
    assert metrics.memory_limit_bytes(tmp_path) == (expected or metrics.memory_limit_bytes(tmp_path / "none"))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "25000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.25),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_cpu_limit_is_the_cgroups_or_the_machines(
    tmp_path: Path, files: dict[str, str], expected: float | None
) -> None:
    write(tmp_path, files)
    assert metrics.cpu_limit_cores(tmp_path) == (expected or metrics.cpu_limit_cores(tmp_path / "none"))


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)
