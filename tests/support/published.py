"""What the database has of nodes, for unit tests: the items, and the functions of `storage/pubsub.py` over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from router.turn import Write
from storage import pubsub
from storage.log import Row
from storage.pubsub import Item, Page, Wanted


class Published:
    """`items` by the node's key and the item's id."""

    def __init__(self, archive: Callable[[Row], None]) -> None:
        self.items: dict[int, dict[str, Item]] = {}
        self.keys: dict[tuple[int, str], tuple[int, int]] = {}
        self.archive = archive

    def functions(self) -> dict[Callable[..., Any], Callable[..., Any]]:
        """What is read."""
        return {
            pubsub.last_items: self._last,
            pubsub.items_by_id: self._by_id,
            pubsub.page: self._page,
            pubsub.ids: lambda node, limit: [item.id for item in self._of(node)[-limit:]],
        }

    def write(self, write: Write) -> None:
        """One write of a turn, if it concerns items."""
        arguments: Any = write.arguments
        if write.statement is pubsub.publish:
            node, new, key, keep, since, archived = arguments
            known = self.keys.get((node, new.id))
            if known is not None and known[0] == key[0] and known[1] >= key[1]:
                return
            self.keys[(node, new.id)] = key
            self.items.setdefault(node, {})[new.id] = new
            if archived is not None:
                self.archive(archived)
            self.items[node] = {item.id: item for item in self._of(node)[-keep:] if item.seq >= since} if keep else {}
        elif write.statement is pubsub.configure:
            node, _, keep = arguments
            if keep is not None:
                self.items[node] = {item.id: item for item in self._of(node)[-keep:]} if keep else {}
        elif write.statement is pubsub.retract:
            node, ids = arguments
            self.items[node] = {item.id: item for item in self._of(node) if item.id not in ids}
        elif write.statement in (pubsub.purge, pubsub.delete):
            self.items.pop(arguments[0], None)

    def _of(self, node: int) -> list[Item]:
        return sorted(self.items.get(node, {}).values(), key=lambda item: item.seq)

    def _last(self, nodes: Sequence[int]) -> dict[int, Item]:
        return {node: self._of(node)[-1] for node in nodes if self._of(node)}

    def _by_id(self, node: int, ids: Sequence[str], since: int = 0) -> list[Item]:
        return [item for item in self._of(node) if item.id in ids and item.seq >= since]

    def _page(self, wanted: Wanted) -> Page:
        items = [item for item in self._of(wanted.node) if item.seq >= wanted.since]
        total, ids = len(items), [item.id for item in items]
        first, end = 0, total
        if wanted.after is not None:
            if wanted.after not in ids:
                return Page([], 0, 0, False)
            first = ids.index(wanted.after) + 1
        elif wanted.before is not None:
            if wanted.before not in ids:
                return Page([], 0, 0, False)
            end = ids.index(wanted.before)
        first += wanted.start or 0
        found = items[first:end]
        found = found[-wanted.limit :] if wanted.is_backwards else found[: wanted.limit]
        place = ids.index(found[0].id) if found else total
        return Page(found, place, total, True)
