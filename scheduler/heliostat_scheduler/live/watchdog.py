"""Who holds or asks for a GPU without a lease: the judgement, pure over Ray's tables and the ledger.

Ray itself keeps GPUs that are in slots from everybody who does not name a slot. What remains are those who do name one: an actor
scheduled into a slot's group, one that asks for `GPU_group_<id>`, a group made of another group's resources; and, while some
GPU is in no slot, whoever took it. Waiting is no offence: an actor or group that asks for plain GPUs and has none stays pending.
Nobody is judged on one look: a suspect must be there in two rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from heliostat_scheduler.live import protocol
from heliostat_scheduler.live.loans import granted
from heliostat_scheduler.live.protocol import Lease, SlotRef
from heliostat_scheduler.live.tables import ActorRow, GroupRow, JobRow, owner_of


@dataclass(frozen=True, slots=True)
class Suspect:
    """what: `actor` or `group`; id: of Ray. group: the slot's group that is concerned ("" for none)."""

    what: str
    id: str
    node: str
    slot: str
    owner_job: str
    text: str


def suspects(
    actors: Sequence[ActorRow],
    groups: Iterable[GroupRow],
    jobs: Mapping[str, JobRow],
    leases: Iterable[Lease],
    slots: Mapping[str, SlotRef],
) -> list[Suspect]:
    """Everybody without a right. slots: by group. groups: those of strangers only matter, ours are recognised by name."""
    held = list(leases)
    owners = {ref.group: lease for lease in held for ref in lease.held}
    owners |= {lease.cpu_group: lease for lease in held if lease.cpu_group}
    strangers = [group for group in groups if not _ours(group)]
    taken = {group.id: group for group in strangers if group.wants_gpu() and group.state != "PENDING"}
    rightful = granted(actors, held)
    found = [
        suspect
        for actor in actors
        if actor.id not in rightful and (suspect := _judge_actor(actor, jobs, owners, slots, taken)) is not None
    ]
    return found + [s for group in strangers if (s := _judge_group(group, slots)) is not None]


def _judge_actor(
    actor: ActorRow,
    jobs: Mapping[str, JobRow],
    owners: Mapping[str, Lease],
    slots: Mapping[str, SlotRef],
    taken: Mapping[str, GroupRow],
) -> Suspect | None:
    owner = owner_of(actor, jobs)
    who = f"actor {actor.class_name or actor.id} of {owner[0] if owner else f'Ray job {actor.job_id}'}"
    for group in sorted(actor.groups()):
        ref = slots.get(group)
        lease = owners.get(group)
        if ref is None and lease is None:
            if group in taken or (actor.asks_by_name() and actor.asks_for_gpu()):
                return _actor(actor, "", owner, f"{who} holds GPUs in a group that is no slot")
            continue
        slot = ref.slot if ref else ""
        if actor.asks_by_name():
            return _actor(actor, slot, owner, f"{who} asked for the group resources of {slot or group} by name")
        if lease is None:
            return _actor(actor, slot, owner, f"{who} sat in {slot}, which nobody has leased")
        if owner != (lease.job, lease.attempt):
            return _actor(
                actor,
                slot,
                owner,
                f"{who} sat in {slot or group}, which is leased to attempt {lease.attempt} of {lease.job}",
            )
    if not actor.groups() and actor.asks_for_gpu() and actor.state == "ALIVE":
        return _actor(actor, "", owner, f"{who} took {actor.requires.get('GPU', 0):g} GPU outside of every slot")
    return None


def _judge_group(group: GroupRow, slots: Mapping[str, SlotRef]) -> Suspect | None:
    node = next((node for node in group.nodes if node), "")
    if inside := group.inside_of():
        slot = next((slots[outer].slot for outer in sorted(inside) if outer in slots), "")
        return Suspect(
            "group", group.id, node, slot, "", f"group {group.name or group.id} is made of another group's resources"
        )
    if group.wants_gpu() and group.state == "CREATED":
        return Suspect(
            "group", group.id, node, "", "", f"group {group.name or group.id} took GPUs outside of every slot"
        )
    return None


def _actor(actor: ActorRow, slot: str, owner: tuple[str, int] | None, text: str) -> Suspect:
    return Suspect("actor", actor.id, actor.node, slot, owner[0] if owner else "", text)


def _ours(group: GroupRow) -> bool:
    return group.name.startswith((protocol.SLOT_PREFIX, protocol.CPU_GROUP_PREFIX, protocol.WANTED_PREFIX))


class Rounds:
    """Suspects that were seen in two rounds in a row."""

    def __init__(self) -> None:
        self._before: set[str] = set()
        self.reported: set[str] = set()

    def confirmed(self, seen: list[Suspect]) -> list[Suspect]:
        now = {suspect.id for suspect in seen}
        sure = [suspect for suspect in seen if suspect.id in self._before]
        self._before = now
        self.reported &= now
        return sure
