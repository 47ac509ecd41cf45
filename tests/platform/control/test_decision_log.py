"""The decision log is a whole chain, and from its snapshot the engine comes to the same decisions again."""

from __future__ import annotations

import json

from heliostat.store.chain import GENESIS
from heliostat.store.tables import DecisionLog, Snapshot
from heliostat_scheduler.core import Engine, codec
from heliostat_scheduler.live.fake_cluster import Program
from sqlalchemy import select

from tests.platform.control.fake_ray import Script
from tests.platform.control.plant import Plant


def test_the_log_replays_to_the_same_decisions_and_digests(plant: Plant) -> None:
    plant.submit("train", gpus=2, work=Script(steps=20), priority=50)
    plant.advance(1_500)
    plant.submit("urgent", gpus=1, work=Program(runs_ms=500), priority=150)
    for job in ("urgent", "train"):
        plant.until(lambda job=job: plant.state(job) == "succeeded", f"{job} to succeed")  # type: ignore[misc]
    plant.advance(1_000)
    with plant.store.read() as session:
        start = session.execute(select(Snapshot).order_by(Snapshot.cycle.desc())).scalars().first()
        records = session.execute(select(DecisionLog).order_by(DecisionLog.cycle)).scalars().all()
    assert start is not None and len(records) > 5
    engine, previous = Engine.restore(start.body), GENESIS
    for record in records:
        assert record.previous == previous
        previous = record.hash
        for at_ms, event in json.loads(record.events):
            engine.apply(codec.decode(codec.TAGGED[event["type"]], event), at_ms)
        told = codec.from_json(record.decisions)
        replayed = engine.decide(record.at_ms)
        assert codec.to_json(replayed.decisions) == codec.to_json(told.decisions)
        assert engine.digest() == record.state_digest, f"cycle {record.cycle} of {len(records)}"
