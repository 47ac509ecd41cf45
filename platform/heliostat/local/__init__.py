"""Processes of one machine: the Ray head and the control plane, started, found and ended. Used by `helio up`, `down`, `doctor`."""

from heliostat.local.cluster import Running, UpOptions, down, leftovers, up
from heliostat.local.cluster_file import ClusterFile
from heliostat.local.cluster_file import read as read_cluster_file
from heliostat.local.doctor import Finding, doctor
from heliostat.local.errors import LocalError
from heliostat.local.progress import Progress, Step, silent

__all__ = [
    "ClusterFile",
    "Finding",
    "LocalError",
    "Progress",
    "Running",
    "Step",
    "UpOptions",
    "doctor",
    "down",
    "leftovers",
    "read_cluster_file",
    "silent",
    "up",
]
