"""From POST to the first byte of output of `echo`, beside Ray's own Jobs API on the same head."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import httpx

from benchmarks.platform.installation import Installation

WORD = "heliostat-first-line"
POLL_S = 0.02


def measure(running: Installation, quick: bool) -> dict[str, Any]:  # Any: JSON
    pairs = 4 if quick else 10
    ours: list[float] = []
    rays: list[float] = []
    with running.client() as client, running.ray_client() as ray:
        for pair in range(pairs + 1):
            if pair % 2:
                rays.append(through_ray(ray))
                ours.append(through_heliostat(client))
            else:
                ours.append(through_heliostat(client))
                rays.append(through_ray(ray))
    ours, rays = ours[1:], rays[1:]
    return {
        "heliostat_median_s": round(median(ours), 3),
        "ray_median_s": round(median(rays), 3),
        "ratio": round(median(ours) / median(rays), 3),
        "target_ratio": 1.1,
        "heliostat_s": [round(s, 2) for s in ours],
        "ray_s": [round(s, 2) for s in rays],
    }


def through_heliostat(client: httpx.Client) -> float:
    started = time.monotonic()
    job = (
        client.post("/api/v1/jobs", json={"kind": "command", "command": ["echo", WORD], "gpus": 1})
        .raise_for_status()
        .json()
    )
    return wait_for_word(client, f"/api/v1/jobs/{job['id']}/logs", started)


def through_ray(client: httpx.Client) -> float:
    started = time.monotonic()
    job = client.post("/api/jobs/", json={"entrypoint": f"echo {WORD}"}).raise_for_status().json()
    return wait_for_word(client, f"/api/jobs/{job['submission_id']}/logs", started)


def wait_for_word(client: httpx.Client, path: str, started: float) -> float:
    while WORD not in client.get(path).text:
        if time.monotonic() - started > 120:
            raise TimeoutError(f"{path} did not show {WORD} within 120 s")
        time.sleep(POLL_S)
    return time.monotonic() - started
