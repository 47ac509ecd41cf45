"""A copy of a dict that costs nothing until it is used: each value is copied when somebody first looks at it.

Good as long as nobody changes the dict that it came from.
"""

from __future__ import annotations

from _collections_abc import dict_items, dict_values
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")


def as_they_are(values: dict[K, V], keys: Sequence[K]) -> list[Any]:  # Any: V, or None for what is not there
    """The values of these keys; a lazy copy takes none of its own for it. What was deleted in one counts as there."""
    if not isinstance(values, Copies):
        return list(map(values.get, keys))
    mine = map(super(Copies, values).get, keys)
    return [theirs if own is None else own for own, theirs in zip(mine, as_they_are(values.base, keys), strict=True)]


class Copies(dict[K, V]):
    """In it is what was looked at or set. `base` has the others, but for those in `_gone`. The order is not that of the source."""

    __slots__ = ("_copy", "_gone", "base")

    def __init__(self, source: dict[K, V], copy: Callable[[V], V]) -> None:
        super().__init__()
        self._copy = copy
        self.base = source
        self._gone: set[K] = set()
        """Keys of `base` that are in here, or deleted."""

    def everything(self) -> Iterator[tuple[K, V]]:
        """All values as they are, without copying any."""
        return chain(dict.items(self), self._others())

    def _others(self) -> Iterable[tuple[K, V]]:
        """What is still in the source only."""
        base = self.base.everything() if isinstance(self.base, Copies) else self.base.items()
        gone = self._gone
        return ((key, value) for key, value in base if key not in gone) if gone else base

    def _as_it_is(self, key: K) -> V:
        """Without copying it. Raises KeyError."""
        if super().__contains__(key):
            return super().__getitem__(key)
        if key in self._gone:
            raise KeyError(key)
        return self.base._as_it_is(key) if isinstance(self.base, Copies) else self.base[key]

    def __missing__(self, key: K) -> V:
        value = self._copy(self._as_it_is(key))
        self._gone.add(key)
        super().__setitem__(key, value)
        return value

    def __setitem__(self, key: K, value: V) -> None:
        if key in self.base:
            self._gone.add(key)
        super().__setitem__(key, value)

    def __delitem__(self, key: K) -> None:
        if super().__contains__(key):
            super().__delitem__(key)
        elif key in self._gone or key not in self.base:
            raise KeyError(key)
        else:
            self._gone.add(key)

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or (key not in self._gone and key in self.base)

    def __len__(self) -> int:
        return super().__len__() + len(self.base) - len(self._gone)

    def __iter__(self) -> Iterator[K]:
        gone = self._gone
        return chain(list(super().__iter__()), [key for key in self.base if key not in gone])

    def get(self, key: K, default: Any = None) -> Any:  # Any: as dict has it
        try:
            return self[key]
        except KeyError:
            return default

    def pop(self, key: K, default: Any = None) -> Any:  # Any: as dict has it
        """What was there, else the default: never an error."""
        if key not in self:
            return default
        value = self[key]
        del self[key]
        return value

    def values(self) -> dict_values[K, V]:
        self._copy_all()
        return super().values()

    def items(self) -> dict_items[K, V]:
        self._copy_all()
        return super().items()

    def _copy_all(self) -> None:
        if not self.base:
            return
        copy = self._copy
        self.update({key: copy(value) for key, value in self._others()})
        self.base, self._gone = {}, set()
