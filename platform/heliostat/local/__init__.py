"""Processes of one machine: the Ray head and the control plane, started, found and ended. Used by `helio up`, `down`, `doctor`."""

from heliostat.local.cluster import Running, UpOptions, down, leftovers, up
from heliostat.local.doctor import Finding, doctor
from heliostat.local.errors import LocalError
from heliostat.local.progress import Progress, Step, silent

__all__ = [
    "Finding",
    "LocalError",
    "Progress",
    "Running",
    "Step",
    "UpOptions",
    "doctor",
    "down",
    "leftovers",
    "silent",
    "up",
]
