"""Whole control planes without Ray (tests/platform/control) whose logs are read here."""

from tests.platform.control.conftest import empty_database, make_plant, plant

__all__ = ["empty_database", "make_plant", "plant"]
