"""The control plane's plant is here, too: jobs that end in it leave models behind."""

from __future__ import annotations

from tests.platform.control.conftest import empty_database as empty_database
from tests.platform.control.conftest import make_plant as make_plant
from tests.platform.control.conftest import plant as plant
