"""How metrics are declared, and the ones that describe the process itself (docs/metrics.md lists all).

A metric is declared once, at the top of the module that moves it, with every label combination it can have, so that
`rate` sees the first event. Per-stanza code counts in the plain integers of a slotted object (`stats.x += 1`) and
exports them with `sampled_counter`, which reads them when Prometheus asks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Final, Generic, TypeVar

import prometheus_client
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cluster.wire import WIRE_VERSION

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZE_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

Labels = Mapping[str, Sequence[str]]  # label name -> every value it can have
Reader = Callable[[], float]
Combination = TypeVar("Combination", bound=tuple[str, ...])

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client leaves it unannotated


def counter(name: str, help_text: str, labels: Labels | None = None, registry: CollectorRegistry = REGISTRY) -> Counter:
    """A counter (`_total`) whose label combinations all start at 0. Keep the children: `labels()` is dear."""
    metric = Counter(name, help_text, list(labels or ()), registry=registry)
    for values in _combinations(labels):
        metric.labels(*values)
    return metric


def gauge(name: str, help_text: str, labels: Labels | None = None, registry: CollectorRegistry = REGISTRY) -> Gauge:
    """A gauge whose label combinations all start at 0."""
    metric = Gauge(name, help_text, list(labels or ()), registry=registry)
    for values in _combinations(labels):
        metric.labels(*values)
    return metric


def histogram(
    name: str,
    help_text: str,
    labels: Labels | None = None,
    buckets: Sequence[float] = LATENCY_BUCKETS,
    registry: CollectorRegistry = REGISTRY,
) -> Histogram:
    """A histogram, of seconds unless `buckets` says otherwise, whose label combinations all start empty."""
    metric = Histogram(name, help_text, list(labels or ()), buckets=buckets, registry=registry)
    for values in _combinations(labels):
        metric.labels(*values)
    return metric


def _combinations(labels: Labels | None) -> Iterator[tuple[str, ...]]:
    return product(*labels.values()) if labels else iter(())


class _Sampled(Collector, Generic[Combination]):
    """One metric family whose values are read at scrape time."""

    def __init__(
        self,
        make: Callable[[], CounterMetricFamily | GaugeMetricFamily],
        read: Callable[[], Iterable[tuple[Combination, float]]],
    ):
        self._make = make
        self._read = read

    def collect(self) -> Iterator[Metric]:
        family = self._make()
        for labels, value in self._read():
            family.add_metric(labels, value)
        yield family


def _read_each(values: Mapping[Combination, Reader]) -> Callable[[], Iterable[tuple[Combination, float]]]:
    return lambda: ((labels, read()) for labels, read in values.items())


def sampled_counter(
    name: str,
    help_text: str,
    labels: Sequence[str],
    values: Mapping[Combination, Reader],
    registry: CollectorRegistry = REGISTRY,
) -> None:
    """A counter kept elsewhere: `values` maps each combination of label values (`()` if none) to its reader."""
    registry.register(_Sampled(lambda: CounterMetricFamily(name, help_text, labels=labels), _read_each(values)))


def sampled_gauge(
    name: str,
    help_text: str,
    labels: Sequence[str],
    values: Mapping[Combination, Reader],
    registry: CollectorRegistry = REGISTRY,
) -> None:
    """A gauge kept elsewhere; see `sampled_counter`."""
    registry.register(_Sampled(lambda: GaugeMetricFamily(name, help_text, labels=labels), _read_each(values)))


def counted_gauge(
    name: str,
    help_text: str,
    labels: Labels,
    count: Callable[[], Mapping[tuple[str, ...], float]],
    registry: CollectorRegistry = REGISTRY,
) -> None:
    """A gauge counted anew at each scrape, all combinations of label values in one go; one that is not there is 0."""

    def read() -> Iterable[tuple[tuple[str, ...], float]]:
        counts = count()
        return ((values, counts.get(values, 0.0)) for values in _combinations(labels))

    registry.register(_Sampled(lambda: GaugeMetricFamily(name, help_text, labels=list(labels)), read))


def exposition(registry: CollectorRegistry = REGISTRY) -> bytes:
    """Everything in the registry, in Prometheus' text format."""
    return generate_latest(registry)


@lru_cache(maxsize=1)
def software_version() -> str:
    """Version of Stentor that runs."""
    return version("stentor")


def memory_limit_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Memory this process may use: the limit of its cgroup (version 2, else 1) or the machine's, whichever is lower."""
    machine = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limits = (_number(cgroup / "memory.max"), _number(cgroup / "memory" / "memory.limit_in_bytes"))
    return min([machine, *(limit for limit in limits if limit is not None)])


def cpu_limit_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores this process may use: the quota of its cgroup (version 2, else 1) or the machine's, whichever is lower."""
    machine = float(len(os.sched_getaffinity(0)))
    quota, period = None, None
    words = _words(cgroup / "cpu.max")
    if len(words) == 2 and words[0].isdigit():
        quota, period = float(words[0]), float(words[1])
    elif not words:
        quota = _number(cgroup / "cpu" / "cpu.cfs_quota_us")
        period = _number(cgroup / "cpu" / "cpu.cfs_period_us")
    return min(machine, quota / period) if quota and period else machine


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _number(path: Path) -> float | None:
    words = _words(path)
    return float(words[0]) if len(words) == 1 and words[0].isdigit() else None


def declare_process_metrics(registry: CollectorRegistry = REGISTRY) -> None:
    """Version and limits of this process; called once, at its start."""
    running = {"version": [software_version()], "wire": [str(WIRE_VERSION)]}
    build = gauge("stentor_build_info", "Version of the software and of the wire format, always 1", running, registry)
    build.labels(software_version(), str(WIRE_VERSION)).set(1)
    memory = "Memory the process may use, from its cgroup or the machine"
    gauge("stentor_memory_limit_bytes", memory, registry=registry).set(memory_limit_bytes())
    cores = "Processor cores the process may use, from its cgroup or the machine"
    gauge("stentor_cpu_limit_cores", cores, registry=registry).set(cpu_limit_cores())
