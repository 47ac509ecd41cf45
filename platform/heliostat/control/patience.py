"""How long each phase of an attempt may last before something is done about it, and how often Ray is asked. Milliseconds."""

from __future__ import annotations

GRANT_PATIENCE_MS = 60_000
START_PATIENCE_MS = 120_000
"""A driver that Ray keeps PENDING waits only for a supervisor process: seconds, a minute on a machine that is very busy."""
ENVIRONMENT_PATIENCE_MS = 900_000
"""Unless its `runtime_env` installs packages first, which takes as long as the network takes: Ray's own limit."""
RESTART_PATIENCE_MS = 180_000
"""From a resize's `released` to workers that run again: process start and imports, tried more than once if need be."""
ORDER_SLACK_MS = 3_000
CLOSE_PATIENCE_MS = 15_000
POLL_MS = 300
RUNNING_POLL_MS = 1_000
LOOK_PATIENCE_MS = 5_000
SILENT_MS = 2_000
STOP_AGAIN_MS = 10_000
START_TRIES = 6
INSTALLERS = frozenset({"pip", "uv", "conda"})


def start_patience_ms(runtime_env: dict[str, object]) -> int:
    """How long a driver with this environment may stay PENDING at Ray."""
    return ENVIRONMENT_PATIENCE_MS if INSTALLERS & runtime_env.keys() else START_PATIENCE_MS
