"""The Ray whose internals are changed in a job's processes, and the sentence for every other one. Imports nothing of Ray."""

from __future__ import annotations

import sys

from heliostat_jobs.errors import UnsupportedRay

SUPPORTED_RAY = "2.60."


def check_version(what: str) -> None:
    """Raise UnsupportedRay, before anything of Ray is touched, where the process has another Ray. what: who is placed by it."""
    found = str(getattr(sys.modules.get("ray"), "__version__", "of an unknown version"))
    if not found.startswith(SUPPORTED_RAY):
        raise UnsupportedRay(
            f"This is Ray {found}, and Heliostat places {what} by internals of Ray {SUPPORTED_RAY}x.",
            "Install ray==2.60.0 on every node, or the Heliostat release that names your Ray.",
        )
