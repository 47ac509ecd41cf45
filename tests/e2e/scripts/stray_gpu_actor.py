"""Somebody who knows no queue: one actor after the other asks for a GPU. Prints a line whenever one of them got it."""

from __future__ import annotations

import time

import ray

PAUSE_S = 8
"""Somebody who asks again at once, for ever, would win every freed GPU."""


class Stray:
    def hold(self) -> bool:
        time.sleep(3600)
        return True

    def here(self) -> bool:
        return True


def main() -> None:
    ray.init(address="auto", log_to_driver=False)
    while True:
        actor = ray.remote(num_gpus=1, num_cpus=0, max_concurrency=2)(Stray).remote()
        try:
            ray.get(actor.here.remote())
            print("stray runs", flush=True)
            ray.get(actor.hold.remote())
        except ray.exceptions.RayActorError:
            print("stray was killed", flush=True)
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
