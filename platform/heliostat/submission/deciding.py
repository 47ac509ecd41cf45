"""Whether a submission may enter, and the row it becomes. Pure: everything it needs is handed in, nothing is stored.

`accept` answers with the columns of a new job, or raises `Refused` with what to change. What only the store can know (are
the packages there, do the jobs waited for exist, is the id new) is checked in the same transaction that inserts the row.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from heliostat_scheduler.core.model import PRIORITY_CLASSES, Preemptibility

from heliostat.access import Action, Principal
from heliostat.queuefile import QueueFile, class_of
from heliostat.submission import environment
from heliostat.submission.capacity import Capacity
from heliostat.submission.fitting import check_fits, check_flavor
from heliostat.submission.request import Asked, Refused
from heliostat.submission.shape import shape_of

KINDS = ("ray", "command")
LATER_KINDS = ("train", "tune", "batch", "compress", "evaluate")
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
MAX_PRIORITY = 200
MAX_COMMAND = 100_000


@dataclass(frozen=True, slots=True)
class Accepted:
    """A submission that may enter. values: columns of its row, all but seq. packages: names that must be in the project."""

    values: dict[str, Any]  # Any: column values
    packages: tuple[str, ...]
    after: tuple[str, ...]


def accept(
    asked: Asked, *, principal: Principal, file: QueueFile, capacity: Capacity, job_id: str, now_ms: int
) -> Accepted:
    if not principal.may(Action.SUBMIT):
        raise Refused("forbidden", f"A {principal.role} may not submit jobs.", "Ask for a member token.", status=403)
    _check_command(asked)
    seat = seat_of(asked, principal, file)
    queue = seat.queue
    shape = shape_of(asked)
    preemptibility = preemptibility_of(asked)
    if asked.nodes != 1:
        raise Refused(
            "not_supported_yet", "Commands over several nodes are not supported yet.", "Leave nodes out.", field="nodes"
        )
    check_flavor(asked.flavor, capacity)
    environment.check_env(asked.env, "env")
    environment.check_runtime_env(asked.runtime_env, uses_gpus=shape.gpu_milli > 0)
    environment.check_metadata(asked.metadata)
    working, uploaded = environment.package_uris(asked.runtime_env, asked.working_dir_package)
    check_fits(
        shape,
        queue=queue,
        file=file,
        flavor=asked.flavor,
        capacity=capacity,
        one_node=asked.kind == "command",
        preemptibility=preemptibility,
    )
    values = {
        "id": asked.id or job_id,
        **seat.values(),
        "user": principal.user,
        "preemptibility": preemptibility,
        "package_uri": working,
        "submitted_ms": now_ms,
        "state_since_ms": now_ms,
        **_as_asked(asked),
        **asdict(shape),
    }
    return Accepted(values, tuple(uri.removeprefix("gcs://") for uri in uploaded), asked.after)


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a request belongs."""

    project: str
    queue: str
    priority: int

    def values(self) -> dict[str, Any]:  # Any: column values
        return {**asdict(self), "priority_class": class_of(self.priority)}


def seat_of(asked: Asked, principal: Principal, file: QueueFile) -> Seat:
    """Project, queue and priority, when the caller may have them."""
    queue = _queue(asked, file)
    priority = _priority(asked.priority)
    project = asked.project or principal.home
    if not principal.sees(project):
        raise unknown_project(project)
    _check_rules(file, queue, principal, project, priority)
    return Seat(project, queue, priority)


def preemptibility_of(asked: Asked) -> str:
    return _one_of(asked.preemptibility, tuple(Preemptibility), "preemptibility")


def _as_asked(asked: Asked) -> dict[str, Any]:  # Any: column values
    """The columns that are what was asked for."""
    return {
        "name": asked.name or _name(asked),
        "kind": asked.kind,
        "state": "held" if asked.hold else "queued",
        "flavor": asked.flavor,
        "nodes": asked.nodes,
        "entrypoint": asked.entrypoint,
        "argv": list(asked.argv),
        "env": dict(asked.env),
        "runtime_env": dict(asked.runtime_env),
        "job_metadata": dict(asked.metadata),
        "dependencies": list(asked.after),
        "max_runtime_ms": _max_runtime_ms(asked.max_runtime_s),
    }


def unknown_project(project: str) -> Refused:
    return Refused(
        "unknown_project",
        f"There is no project '{project}' for this token.",
        "Leave project out, or ask an administrator for a token of it: helio token create --project NAME",
        status=404,
        field="project",
    )


def _check_command(asked: Asked) -> None:
    if asked.kind in LATER_KINDS:
        raise Refused(
            "not_supported_yet", f"Kind {asked.kind} is not supported yet.", "Use kind ray or command.", field="kind"
        )
    _one_of(asked.kind, KINDS, "kind")
    if bool(asked.argv) == bool(asked.entrypoint.strip()):
        what = "both command and entrypoint" if asked.argv else "no command"
        raise Refused(
            "bad_request",
            f"The job has {what}.",
            "Send command (a list of words) or entrypoint (a shell line).",
            field="command",
        )
    if asked.argv and not asked.argv[0].strip():
        raise Refused(
            "bad_request", "The first word of the command is empty.", "Name the program first.", field="command"
        )
    words = (*asked.argv, asked.entrypoint)
    if "\0" in "".join(words) or sum(map(len, words)) > MAX_COMMAND:
        raise Refused(
            "bad_request",
            f"The command is longer than {MAX_COMMAND} characters or holds a NUL.",
            "Use a script.",
            field="command",
        )
    if asked.id and not ID.fullmatch(asked.id):
        raise Refused(
            "bad_request",
            f"'{asked.id[:200]}' is no job id: letters, digits, '.', '_' and '-', at most 121.",
            "Change id.",
            field="id",
        )
    if len(asked.name) > 200:
        raise Refused("bad_request", "The name has more than 200 characters.", "Shorten name.", field="name")


def _queue(asked: Asked, file: QueueFile) -> str:
    leaves = ", ".join(file.leaves())
    name = asked.queue or file.default
    if not name:
        raise Refused(
            "unknown_queue",
            "The job names no queue, and there is no default queue.",
            f"Choose one of: {leaves}.",
            field="queue",
        )
    if name not in file.queues:
        raise Refused("unknown_queue", f"There is no queue '{name}'.", f"Queues here: {leaves}.", field="queue")
    if name not in file.leaves():
        raise Refused(
            "unknown_queue",
            f"Queue {name} has queues below it; jobs enter those.",
            f"Choose one of: {leaves}.",
            field="queue",
        )
    return name


def _priority(asked: str | int) -> int:
    if isinstance(asked, str) and asked.lstrip("-").isdigit():
        asked = int(asked)
    if isinstance(asked, str):
        name = asked or "normal"
        if name in PRIORITY_CLASSES:
            return PRIORITY_CLASSES[name]
    elif 0 <= asked <= MAX_PRIORITY:
        return asked
    classes = ", ".join(f"{name} ({value})" for name, value in PRIORITY_CLASSES.items())
    raise Refused(
        "unknown_priority",
        f"There is no priority '{asked}'.",
        f"Use {classes} or a number from 0 to {MAX_PRIORITY}.",
        field="priority",
    )


def _check_rules(file: QueueFile, queue: str, principal: Principal, project: str, priority: int) -> None:
    """The file's rules bind everybody but the platform's administrators."""
    if principal.may(Action.PLATFORM):
        return
    denied = file.denied(queue, project=project, user=principal.user, role=principal.role, priority=priority)
    if denied is not None:
        raise Refused(
            f"{denied.what}_not_allowed",
            f"{denied.text} The rule: {denied.rule}.",
            denied.remedy,
            status=403,
            field=denied.what,
            facts={"rule": denied.rule},
        )


def _max_runtime_ms(seconds: float | None) -> int | None:
    if seconds is None:
        return None
    if not 0 < seconds <= 10**9:
        raise Refused(
            "bad_request", f"max_runtime_s ({seconds}) must be above 0.", "Change max_runtime_s.", field="max_runtime_s"
        )
    return round(seconds * 1000)


def _one_of(value: str, known: tuple[str, ...], field: str) -> str:
    if value not in known:
        raise Refused(
            "bad_request", f"{field} '{value}' is not known.", f"Use one of: {', '.join(known)}.", field=field
        )
    return str(value)


def _name(asked: Asked) -> str:
    """A name to show: the script's, else the program's."""
    try:
        words = list(asked.argv) or shlex.split(asked.entrypoint)
    except ValueError:
        words = asked.entrypoint.split()
    script = next((word for word in words if word.endswith((".py", ".sh"))), words[0] if words else "")
    return PurePosixPath(script).name[:200]
