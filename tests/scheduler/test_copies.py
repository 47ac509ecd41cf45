"""A lazy copy of a dict behaves like a dict of copies, on every level, and leaves its source alone."""

from __future__ import annotations

from random import Random

import pytest
from heliostat_scheduler.core.copies import Copies, as_they_are

Box = list[int]


def turn(rng: Random, real: dict[str, Box], lazy: Copies[str, Box]) -> None:
    """The same to both; what comes back is equal."""
    key = str(rng.randrange(14))
    match rng.randrange(8):
        case 0:
            real[key], lazy[key] = [7], [7]
        case 1:
            assert real.pop(key, None) == lazy.pop(key, None)
        case 2:
            assert real.get(key) == lazy.get(key)
        case 3:
            assert (key in real) == (key in lazy)
        case 4 if key in real:
            real[key].append(1)
            lazy[key].append(1)
        case 5 if key in real:
            del real[key]
            del lazy[key]
        case 6 if rng.random() < 0.2:
            assert sorted(real.values()) == sorted(lazy.values())
        case 7:
            assert sorted(real) == sorted(lazy)
    assert len(real) == len(lazy) and bool(real) == bool(lazy)
    assert real == dict(lazy.everything())
    assert as_they_are(lazy, list(real)) == list(real.values())


@pytest.mark.parametrize("seed", range(30))
def test_a_copy_of_a_copy_is_a_dict_of_its_own(seed: int) -> None:
    rng = Random(seed)
    source = {str(number): [number] for number in range(10)}
    lazy: Copies[str, Box] = Copies(source, list.copy)
    for _ in range(3):
        real = {key: value.copy() for key, value in lazy.everything()}
        before = {key: value.copy() for key, value in lazy.everything()}
        above = Copies(lazy, list.copy)
        for _ in range(40):
            turn(rng, real, above)
        assert dict(lazy.everything()) == before
        lazy = above
    assert dict(lazy.items()) == real
    assert source == {str(number): [number] for number in range(10)}


def test_what_is_not_there_is_an_error() -> None:
    lazy: Copies[str, Box] = Copies({"a": [1]}, list.copy)
    del lazy["a"]
    for key in ("a", "b"):
        with pytest.raises(KeyError):
            lazy[key]
        with pytest.raises(KeyError):
            del lazy[key]
