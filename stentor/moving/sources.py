"""Several sources as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stentor.moving.things import Owned, Source


class _Several:
    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def accounts(self) -> Iterator[Owned]:
        for source in self._sources:
            yield from source.accounts()

    def data(self) -> Iterator[Owned]:
        for source in self._sources:
            yield from source.data()


def several(sources: Sequence[Source]) -> Source:
    """One after the other; what a later one repeats is there already."""
    return sources[0] if len(sources) == 1 else _Several(sources)
