"""What the control plane, the bridge, the lease board and the runners say to each other. Ray-free: everybody may import it.

Three conversations:
- control plane -> bridge: *commands*, one JSON object a line on the bridge's standard input. Each is keyed by (job, epoch) and safe
  to repeat; each is answered by one `Reply` with the same `id`. A command of an older `term` than the bridge has seen is refused.
- bridge -> control plane: *facts*, one JSON object a line on its standard output. A fact that frees a GPU is sent only after Ray's own
  tables agreed.
- runners <-> lease board: the record `Lease` and acks, guarded by the lease's secret. The board decides nothing and is rebuilt
  from `Hello.leases`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

BOARD_NAME = "heliostat-lease-board"
NAMESPACE = "heliostat"
SLOT_PREFIX = "heliostat-slot:"
CPU_GROUP_PREFIX = "heliostat-cpu:"
WANTED_PREFIX = "heliostat-wanted:"  # pending groups that ask Ray's autoscaler for nodes

ENV_JOB = "HELIOSTAT_JOB"
ENV_ATTEMPT = "HELIOSTAT_ATTEMPT"
ENV_SECRET = "HELIOSTAT_LEASE_SECRET"
ENV_RUN_DIR = "HELIOSTAT_RUN_DIR"
ENV_CHECKPOINT_DIR = "HELIOSTAT_CHECKPOINT_DIR"
ENV_DISCOVER = "HELIOSTAT_DISCOVER"  # "1": the job declared no GPUs, and its first fit() may ask for them
ENV_WARM = "HELIOSTAT_WARM_HANDOVER"  # "0": every resize ends and starts all of a run's processes
ENV_KIND = (
    "HELIOSTAT_KIND"  # set to `command` for a child that has its GPUs in CUDA_VISIBLE_DEVICES: Ray is not hooked in it
)

# What a lease orders its runner to do.
RUN = "run"
PREEMPT = "preempt"  # checkpoint, release, ack `released`
STOP = "stop"  # as PREEMPT, but the job ends
REVOKED = "revoked"  # hard: whoever is in the slots is being killed

# What a runner (or the bridge for it) acks. `exited` carries rc in facts.
STARTED = "started"
CHECKPOINTED = "checkpointed"
RELEASED = "released"
DEMAND = "demand"  # a program that declared nothing asks: facts min_gpus, max_gpus, gpus_per_task, by
EXITED = "exited"
RESULT = "result"

# Reply.code: "" when a command was carried out, else one of these words.
STALE_TERM = "stale_term"  # a newer control plane has spoken
STALE_EPOCH = "stale_epoch"  # the lease has moved on, or was revoked or freed
CPU_BUSY = "cpu_busy"  # the node had no CPU left for the lease's group within 10 s
UNKNOWN_SLOT = "unknown_slot"  # no such slot, or its group was made anew since
UNKNOWN_NODE = "unknown_node"
SLOT_LEASED = "slot_leased"  # another job's lease still names the slot
NODE_LEASED = "node_leased"  # the node's slots cannot go while a lease names one
NO_LEASE = "no_lease"
NO_HELLO = "no_hello"  # the first command must be Hello
FAILED = "failed"


class LeaseGone(Exception):
    """The lease is revoked, dropped or unknown, or the secret is not its own: whoever reads this must let go of its slots."""


@dataclass(frozen=True, slots=True)
class SlotRef:
    """One leased GPU: the slot's id, its placement group (hex), node, device index, and what its bundle holds."""

    slot: str
    group: str
    node: str
    device: int
    cpu_milli: int = 1000
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease as the board holds it. slots[i] is where task (rank) i runs; grouped by node, sorted by device.

    node: for a CPU-only lease, its node (slots empty, `cpu_group` the placement group's hex once created: one bundle with all of
    cpu_milli and memory_bytes, which are totals over the tasks).
    leaving: slots of the epoch before that a RUN order takes away; they are the lease's until they are verified free.
    app: of kind `serve`: the Serve application whose replicas get the GPUs; the groups of its slots are removed meanwhile (`lending`).
    deadline_ms: wall clock (epoch ms) by which an order must be done: PREEMPT, STOP, or RUN with other slots (0: nothing to do).
    """

    job: str
    attempt: int
    epoch: int
    kind: str
    order: str
    secret: str
    tasks: int
    slots: tuple[SlotRef, ...] = ()
    deadline_ms: int = 0
    node: str = ""
    cpu_milli: int = 0
    memory_bytes: int = 0
    cpu_group: str = ""
    why: str = ""
    leaving: tuple[SlotRef, ...] = ()
    app: str = ""

    @property
    def held(self) -> tuple[SlotRef, ...]:
        """Every slot in which this lease's processes may be."""
        return self.slots + self.leaving


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """A `kind=command` attempt. The child is started on each node of the lease (one node unless `nodes` > 1).

    With `nodes` > 1 each child also gets MASTER_ADDR, MASTER_PORT, NODE_RANK and WORLD_SIZE (= number of nodes).
    CUDA_VISIBLE_DEVICES is always set: the lease's devices on that node ("" for none).

    argv: what to run (a shell line is ["/bin/bash", "-c", line]). env: added to the node's environment. cwd: created if missing.
    log: the file that stdout and stderr are appended to. package: a zip that is unpacked into cwd first ("" for none).
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = ""
    log: str = ""
    package: str = ""
    nodes: int = 1
    grace_ms: int = 30_000


# ---- control plane -> bridge -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """First command after every start of the bridge or the control plane. The board is rebuilt from `leases`.

    Answered with Reply.data = {"nodes": [NodeJoined...], "occupied": {slot: [actor ids]}}: what Ray's own tables say.
    """

    id: int
    term: int
    leases: tuple[Lease, ...] = ()
    slot_cpu_milli: int = 1000
    reserve_cpu_milli: int = 0  # 0: max(2 cores, 10 %)
    poll_ms: int = 100


@dataclass(frozen=True, slots=True)
class PutLease:
    """Write the lease (a grant, or an order by a raised epoch). Same epoch and content again: no effect. Older epoch: refused.

    A CPU-only lease gets its placement group here; code `cpu_busy` when it could not be created within 10 s.
    Reply.data["left"]: true when the lease leaves slots and nobody is in them (any more).
    """

    id: int
    term: int
    lease: Lease


@dataclass(frozen=True, slots=True)
class StartCommand:
    """Start the child of a command job inside its lease. Repeated for the same (job, attempt): no effect."""

    id: int
    term: int
    job: str
    attempt: int
    epoch: int
    spec: CommandSpec


@dataclass(frozen=True, slots=True)
class SignalCommand:
    """SIGTERM now, SIGKILL after the grace, to the process group of a command job. `Exited` follows."""

    id: int
    term: int
    job: str
    attempt: int
    grace_ms: int


@dataclass(frozen=True, slots=True)
class HardStop:
    """Mark the lease REVOKED, then kill every occupant of its slots until Ray's tables show them free. Freed follows."""

    id: int
    term: int
    job: str
    epoch: int


@dataclass(frozen=True, slots=True)
class DropLease:
    """The attempt is over: forget the lease once its slots are verified free (kills what is left after `grace_ms`). Freed follows."""

    id: int
    term: int
    job: str
    epoch: int
    grace_ms: int = 5_000


@dataclass(frozen=True, slots=True)
class DropNode:
    """Remove the slots of an unleased node (drain, scale-down): occupants are listed and killed first, groups removed after."""

    id: int
    term: int
    node: str


@dataclass(frozen=True, slots=True)
class RestoreNode:
    """Make the slots of a node again (uncordon)."""

    id: int
    term: int
    node: str


@dataclass(frozen=True, slots=True)
class NodeWant:
    """`count` more nodes with the label heliostat/flavor; with those that are there at most `max_nodes`.

    gpus, cpu_milli: what one has; the demand that Ray's autoscaler sees is all its GPUs, or, where it has none, its CPUs.
    """

    flavor: str
    count: int
    max_nodes: int
    gpus: int = 0
    cpu_milli: int = 0


@dataclass(frozen=True, slots=True)
class WantNodes:
    """All nodes that are wanted now: replaces what was wanted before. Each is one pending, unpinned placement group.

    known: the nodes that the sender knows. One of the flavor that is alive and not among them is one that was wanted and has come.
    """

    id: int
    term: int
    wants: tuple[NodeWant, ...]
    known: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bye:
    """End the bridge. remove_slots: also remove all slots and the board (detaching from a cluster that goes on)."""

    id: int
    term: int
    remove_slots: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer to a command. code is "" when it was carried out, else one of the words above (STALE_TERM ... FAILED)."""

    id: int
    code: str = ""
    text: str = ""
    data: dict[str, Any] = field(default_factory=dict)  # Any: JSON


# ---- bridge -> control plane -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """The bridge is connected to Ray. pid is its own. strangers: who held GPUs outside of slots then, one sentence each."""

    ray_version: str
    gcs_address: str
    pid: int
    head_node: str
    strangers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeJoined:
    """A node and its slots are usable; sent again when its slots changed. cpu_milli, memory_bytes: the floating part."""

    node: str
    ip: str
    flavor: str
    slots: tuple[SlotRef, ...]
    cpu_milli: int
    memory_bytes: int
    labels: dict[str, str] = field(default_factory=dict)
    is_head: bool = False


@dataclass(frozen=True, slots=True)
class NodeLost:
    node: str


@dataclass(frozen=True, slots=True)
class Acked:
    """A runner's ack: what = started | checkpointed | released | exited | result. `released` is already verified with Ray's tables:
    all slots of the lease after PREEMPT or STOP, those that it leaves after RUN.

    Delivered at least once: acks of live leases come again after every Hello. A command's `exited` carries rc (128 + n for signal n),
    signal (0 for none), lost (True: its holder died, the code is not known) and text.
    """

    job: str
    attempt: int
    epoch: int
    what: str
    facts: dict[str, Any] = field(default_factory=dict)  # Any: JSON


@dataclass(frozen=True, slots=True)
class Progress:
    """A runner's progress report: step, samples_per_s, loss..., checkpoint_at_ms, ranks."""

    job: str
    attempt: int
    facts: dict[str, Any] = field(default_factory=dict)  # Any: JSON


@dataclass(frozen=True, slots=True)
class Freed:
    """The lease's slots (and CPU group) are verified free; the board has forgotten the lease."""

    job: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Intruder:
    """A process held a GPU without a lease, or asked for a slot's group resource: what it was and what was done."""

    what: str
    id: str
    node: str
    slot: str
    killed: bool
    owner_job: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class SlotTrouble:
    """A slot cannot be used (`ok` False) or can be again."""

    slot: str
    ok: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class BoardRebuilt:
    """The lease board had died; it was filled again with this many leases."""

    leases: int


@dataclass(frozen=True, slots=True)
class Note:
    """A log line of the bridge: level (info, warning, error), event name, fields."""

    level: str
    event: str
    fields: dict[str, Any] = field(default_factory=dict)  # Any: JSON


Command = (
    Hello | PutLease | StartCommand | SignalCommand | HardStop | DropLease | DropNode | RestoreNode | WantNodes | Bye
)
Fact = Reply | Ready | NodeJoined | NodeLost | Acked | Progress | Freed | Intruder | SlotTrouble | BoardRebuilt | Note
Message = Command | Fact

_TYPES: dict[str, type[Any]] = {  # Any: the message classes above have no common base
    c.__name__: c for c in get_args(Command) + get_args(Fact)
}


class ProtocolError(Exception):
    """A line that is no message of this protocol."""


def encode(message: Message) -> bytes:
    """One line of JSON, newline included."""
    body = {"type": type(message).__name__, **asdict(message)}
    return json.dumps(body, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message of one line. Raises ProtocolError with the first 200 bytes of what it could not read."""
    try:
        body = json.loads(line)
        cls = _TYPES[body.pop("type")]
        return _build(cls, body)  # type: ignore[no-any-return]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"not a message: {line[:200]!r} ({error})") from error


def lease_from(body: dict[str, Any]) -> Lease:  # Any: JSON
    """A Lease from its JSON object."""
    slots, leaving = (tuple(SlotRef(**slot) for slot in body.get(name, ())) for name in ("slots", "leaving"))
    return Lease(**{**body, "slots": slots, "leaving": leaving})


def _build(cls: type[Any], body: dict[str, Any]) -> Any:  # Any: JSON in, one of the classes above out
    known = {f.name for f in fields(cls)}
    values = {key: value for key, value in body.items() if key in known}
    if cls is Hello:
        values["leases"] = tuple(lease_from(lease) for lease in values.get("leases", ()))
    if cls is WantNodes:
        values["wants"] = tuple(NodeWant(**want) for want in values["wants"])
        values["known"] = tuple(values.get("known", ()))
    if cls is PutLease:
        values["lease"] = lease_from(values["lease"])
    if cls is Ready:
        values["strangers"] = tuple(values.get("strangers", ()))
    if cls is NodeJoined:
        values["slots"] = tuple(SlotRef(**slot) for slot in values["slots"])
    if cls is StartCommand:
        spec = values["spec"]
        env = tuple((key, value) for key, value in spec["env"])
        values["spec"] = CommandSpec(**{**spec, "argv": tuple(spec["argv"]), "env": env})
    return cls(**values)
