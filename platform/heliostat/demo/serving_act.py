"""Act three: the model that the elastic training left is registered, deployed, and predicts over HTTP with a key."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from heliostat.client.models import ModelVersion
from heliostat.demo.elastic_act import ELASTIC, MODEL
from heliostat.demo.stage import DemoFailed, Stage
from heliostat.wire.errors import HeliostatError, NotFound

ENDPOINT = "digits"
SEED = 7
IMAGES = 100
REGISTER_S = 30.0
READY_S = 180.0
WANTED_ACCURACY = 0.95


@dataclass(frozen=True, slots=True)
class Served:
    """What act three leaves behind. first_prediction_s: from the beginning of the play. refused: what a call without a key got."""

    model: dict[str, Any]  # Any: JSON: name, version, sha256
    url: str
    split: str
    predicted: int
    correct: int
    p50_ms: float
    first_prediction_s: float
    refused: str

    @property
    def accuracy(self) -> float:
        return self.correct / self.predicted if self.predicted else 0.0


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Images that no training with this seed has seen, and their labels."""

    images: list[Any]  # Any: nested lists
    labels: list[int]
    split: str


def play(stage: Stage) -> Served:
    client, audience = stage.scene.client, stage.audience
    audience.act("Eve's model is in the registry; it is deployed, and answers only after a smoke request")
    model = _registered(stage)
    reference = f"{model.name}:{model.version}"
    audience.said(f"{reference}, made by {ELASTIC}, artifact {model.sha256[:16]}")
    audience.typed(f"helio deploy {reference} --endpoint {ENDPOINT} --queue research")
    endpoint = client.deploy(reference, ENDPOINT, queue="research")
    endpoint.wait_ready(READY_S, told=audience.said)

    audience.act(f"The first {IMAGES} images that it was tested on, and never trained on, go to it over HTTP")
    held_out = _held_out()
    audience.typed(f"helio key create {ENDPOINT} --name demo --expires 1h")
    refused = _without_a_key(stage, held_out)
    endpoint.create_key("demo", expires="1h")
    took: list[float] = []
    correct, first_s = 0, 0.0
    for image, label in zip(held_out.images, held_out.labels, strict=True):
        began = time.perf_counter()
        logits = endpoint.predict([image], fresh_key=not took)["logits"][0]
        took.append((time.perf_counter() - began) * 1000)
        first_s = first_s or stage.seconds()
        correct += logits.index(max(logits)) == label
    audience.said(f"{correct} of {len(took)} right; seed {SEED}, test split {held_out.split}")
    p50 = statistics.median(took)
    told = {"name": model.name, "version": model.version, "sha256": model.sha256}
    return Served(told, endpoint.url, held_out.split, len(took), correct, p50, first_s, refused)


def checks(served: Served) -> list[tuple[str, bool]]:
    return [
        (f"the endpoint refuses calls without a key ({served.refused})", served.refused == "unauthenticated"),
        (
            f"over HTTP, {served.correct} of {served.predicted} held-out images are right (at least {WANTED_ACCURACY:.0%})",
            served.predicted == IMAGES and served.accuracy >= WANTED_ACCURACY,
        ),
    ]


def as_json(served: Served) -> dict[str, Any]:  # Any: JSON
    return {
        "model": served.model,
        "endpoint": served.url,
        "http_accuracy": served.accuracy,
        "p50_ms": round(served.p50_ms, 2),
        "first_prediction_s": round(served.first_prediction_s, 1),
        "test_split": {"seed": SEED, "digest": served.split, "images": served.predicted},
    }


def as_text(served: Served) -> str:
    return (
        f"{served.model['name']}:{served.model['version']} at {served.url}: {served.correct} of {served.predicted} held-out images right "
        f"(seed {SEED}, split {served.split}), p50 {served.p50_ms:.1f} ms"
    )


def _registered(stage: Stage) -> ModelVersion:
    """The version that the training's result.json asked for; the registrar needs a moment."""
    until = time.monotonic() + REGISTER_S
    while True:
        try:
            return stage.scene.client.model(MODEL)
        except NotFound as error:
            if time.monotonic() > until:
                raise DemoFailed(f"The model of {ELASTIC} was not registered: {error}") from error
        time.sleep(0.2)


def _held_out() -> HeldOut:
    """As the recipe splits them. In a process of its own: neither numpy nor scikit-learn belongs into ours."""
    line = [sys.executable, "-m", "heliostat_jobs.recipes.digits_data", "--seed", str(SEED), "--first", str(IMAGES)]
    told = subprocess.run(line, capture_output=True, text=True, check=False)
    if told.returncode:
        raise DemoFailed(f"`{' '.join(line[1:])}` ended with {told.returncode}: {told.stderr}")
    body = json.loads(told.stdout)
    return HeldOut(body["images"], body["labels"], str(body["split"]))


def _without_a_key(stage: Stage, held_out: HeldOut) -> str:
    """The code with which a call without a good key is refused."""
    try:
        stage.scene.client.endpoint(ENDPOINT, key="hk_nobody").predict([held_out.images[0]])
    except HeliostatError as error:
        return error.code
    return "nothing"
