"""Act two: a training of one to four workers borrows every GPU, gives two up for production, and takes them back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from heliostat.demo.scene import ELASTIC_QUEUES, Child
from heliostat.demo.stage import DemoFailed, Stage, recipe, urgent
from heliostat.wire.shapes import EventJson, JobJson

ELASTIC = "digits-eve"
MODEL = "digits"
EPOCHS = 55
CHECKPOINT_EVERY = 100
STEP_MS = 30
"""A step takes at least this long, so that growing again, half a minute after the shrink, comes before the end on any machine."""
PRODUCTION_S = 5
FEWEST, MOST, TAKEN = 1, 4, 2


@dataclass(frozen=True, slots=True)
class Borrowed:
    """What act two leaves behind: the training, production's gang, the moves of the training's lease, and `ray job submit`."""

    job: JobJson
    gang: JobJson
    resizes: tuple[dict[str, Any], ...]  # Any: JSON
    child: Child


def play(stage: Stage) -> Borrowed:
    scene, audience = stage.scene, stage.audience
    audience.act("Production keeps two GPUs for itself now; what is free, research may borrow")
    scene.client.apply_queues(ELASTIC_QUEUES)
    audience.typed("helio queue apply queues.yaml")

    audience.act("Eve trains on one to four GPUs; all four are free, so she borrows them")
    metadata = {"queue": "research", "owner": "eve", "min_gpus": str(FEWEST), "max_gpus": str(MOST)}
    options = ["--workers", f"{FEWEST}-{MOST}", "--epochs", str(EPOCHS), "--step-ms", str(STEP_MS)]
    options += ["--checkpoint-every", str(CHECKPOINT_EVERY), "--register", MODEL]
    child = stage.typed(scene.ray_job_submit(ELASTIC, metadata, recipe(*options)), ELASTIC)
    stage.until(f"{ELASTIC} to train on {MOST} GPUs", lambda: stage.steps(ELASTIC) > CHECKPOINT_EVERY * 3 // 2)

    audience.act("A gang of two arrives in production, through the SDK: research shrinks, and nothing is lost")
    audience.typed(f'heliostat.connect().submit([...], queue="production", gpus={TAKEN}, name="gang")')
    gang = scene.client.submit(urgent(PRODUCTION_S), queue="production", gpus=TAKEN, name="gang").id
    stage.until_ended(gang)

    audience.act("Production is done: research takes its GPUs back")
    stage.until(f"{ELASTIC} to grow again", lambda: len(resizes_of(stage.events(ELASTIC))) >= 2)
    stage.until_ended(ELASTIC)
    stage.until_returned(child)
    if scene.client.read_job(gang).get("state") != "succeeded":
        raise DemoFailed(f"the gang of production ended {scene.client.read_job(gang).get('state')}")
    found = resizes_of(stage.events(ELASTIC))
    return Borrowed(scene.client.read_job(ELASTIC), scene.client.read_job(gang), tuple(found), child)


def resizes_of(events: list[EventJson]) -> list[dict[str, Any]]:  # Any: JSON
    """The completed resizes of a job, oldest first: {at, job, from, to, reason, checkpoint_s, released_s}; at: when it was ordered."""
    found: list[dict[str, Any]] = []
    ordered: EventJson | None = None
    for event in events:
        if event.get("kind") != "job_moved":
            continue
        if event.get("to") == "resizing":
            ordered = event
        elif event.get("from") == "resizing" and event.get("to") == "running" and ordered is not None:
            data = event.get("data") or {}
            why = (ordered.get("reason") or {}).get("code", "")
            kept = {name: data.get(name) for name in ("from", "to", "checkpoint_s", "released_s")}
            found.append({"at": ordered.get("at"), "job": event.get("job"), "reason": why, **kept})
    return found
