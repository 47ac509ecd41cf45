"""The play: act one trains, waits, preempts, resumes; act two shrinks and grows a live training,
act three serves its model. All is counted in the end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from heliostat.demo import elastic_act, serving_act
from heliostat.demo.elastic_act import Borrowed
from heliostat.demo.scene import Child, Scene
from heliostat.demo.serving_act import Served
from heliostat.demo.stage import Audience, Stage, recipe
from heliostat.render.explain import explanation_text
from heliostat.wire.shapes import ExplanationJson, JobJson

FIRST, SECOND = "digits-ada", "digits-bob"
EPOCHS = 30
STEPS_PER_EPOCH = 29
"""The recipe trains on 1,438 images in batches of 48; the last, incomplete batch of an epoch is left out."""
TOTALS = {
    FIRST: EPOCHS * STEPS_PER_EPOCH,
    SECOND: EPOCHS * STEPS_PER_EPOCH,
    elastic_act.ELASTIC: elastic_act.EPOCHS * STEPS_PER_EPOCH,
}
CHECKPOINT_EVERY = 100
URGENT_S = 4


@dataclass(frozen=True, slots=True)
class Told:
    """What the play leaves behind for the verdict. jobs: as the API tells them at the end, in order of submission."""

    jobs: tuple[JobJson, ...]
    explanation: ExplanationJson
    urgent_id: str
    children: tuple[Child, ...]
    borrowed: Borrowed
    served: Served
    seconds: float


def play(scene: Scene, audience: Audience) -> Told:
    stage = Stage(scene, audience, TOTALS)
    explanation, urgent_id, children = _first_act(stage)
    borrowed = elastic_act.play(stage)
    served = serving_act.play(stage)
    jobs = tuple(scene.client.read_job(job_id) for job_id in (FIRST, SECOND, urgent_id))
    return Told(jobs, explanation, urgent_id, children, borrowed, served, stage.seconds())


def _first_act(stage: Stage) -> tuple[ExplanationJson, str, tuple[Child, ...]]:
    """One preemption across queues, with a resume at the old place."""
    scene, audience = stage.scene, stage.audience
    audience.act("Ada trains a CNN on two GPUs, through Ray's own command line")
    first = _train(stage, FIRST, "ada")

    audience.act("Bob submits the same; his queue may use two GPUs, so he waits")
    second = _train(stage, SECOND, "bob")
    stage.until(f"{SECOND} to wait with a reason", lambda: _waits(stage.read(SECOND)))
    audience.typed(f"helio explain {SECOND}")
    explanation = scene.client.job(SECOND).explain().raw
    audience.said(explanation_text(explanation, datetime.now(UTC)))
    audience.said("Bob's own terminal, meanwhile:\n" + "\n".join(_from_us(second)[-2:]))
    stage.until(f"{FIRST} to pass its first checkpoint", lambda: stage.steps(FIRST) > CHECKPOINT_EVERY * 3 // 2)

    audience.act("Production needs all four GPUs now; research only borrowed its two")
    urgent_id = stage.command("production", 4, "urgent", URGENT_S)
    stage.until_ended(urgent_id)

    audience.act("Ada goes on from her checkpoint, then it is Bob's turn")
    stage.until_ended(FIRST, SECOND)
    stage.until_returned(first, second)
    return explanation, urgent_id, (first, second)


def _train(stage: Stage, job_id: str, user: str) -> Child:
    options = ["--workers", "2", "--epochs", str(EPOCHS), "--checkpoint-every", str(CHECKPOINT_EVERY)]
    metadata = {"queue": "research", "owner": user}
    return stage.typed(stage.scene.ray_job_submit(job_id, metadata, recipe(*options), gpus=2), job_id)


def _from_us(child: Child) -> list[str]:
    """What the queue wrote into the terminal of `ray job submit`."""
    return [line for line in child.text().splitlines() if line.startswith("[heliostat]")]


def _waits(job: JobJson) -> bool:
    code = (job.get("reason") or {}).get("code", "")
    return job.get("state") == "queued" and code not in ("", "PendingEvaluation", "Starting")
