"""What a job's own code can do wrong under a lease, and what to do about it. Ray-free.

Every error has a stable `code` for programs and a `remedy` for people; `str()` gives both sentences. They cross process
borders inside Ray's own exceptions, so they pickle with their two arguments.
"""

from __future__ import annotations


class JobError(Exception):
    """Base of everything this package raises on purpose."""

    code = "JobError"

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}"


class NotYetSupported(JobError):
    """Ray can do it, Heliostat cannot place it inside a lease yet."""

    code = "NotYetSupported"


class NeverFits(JobError):
    """No lease can hold this: a process asks for more than a slot has."""

    code = "NeverFits"


class UndeclaredGPU(JobError):
    """The program wants a GPU, but the job was submitted without any."""

    code = "UndeclaredGPU"


class WorkerCountMismatch(JobError):
    """`fit()` wants another number of workers than the lease has GPUs."""

    code = "WorkerCountMismatch"


class ReservedResource(JobError):
    """The program addressed a placement group's own resource name."""

    code = "ReservedResource"


class DemandRefused(JobError):
    """The program asked for GPUs while it ran, and the scheduler can never give them."""

    code = "DemandRefused"


class LeaseLost(JobError):
    """The lease was revoked or is unknown, and nobody stopped this program."""

    code = "LeaseLost"


class BrokerLost(JobError):
    """The job's own actor that hands out its slots has died, while the lease stands. A driver that ends by it counts as crashed."""

    code = "BrokerLost"


class UnsupportedRay(JobError):
    """The installed Ray is not the one whose internals we know."""

    code = "UnsupportedRay"


class BrokenEnvironment(JobError):
    """The HELIOSTAT_ variables of this process contradict each other."""

    code = "BrokenEnvironment"


def metadata_line(fewest: int, most: int | None = None) -> str:
    """How to declare that many GPUs at submission, for messages."""
    most = fewest if most is None else most
    cli = f"--gpus {fewest}" if fewest == most else f"--min-gpus {fewest} --max-gpus {most}"
    return f'--metadata-json \'{{"min_gpus": "{fewest}", "max_gpus": "{most}"}}\' (or `helio submit {cli}`)'
