"""Somebody who knows no queue: one actor after the other asks for a GPU. Prints a line whenever one of them got it, or was killed.

`python stray_gpu_actor.py [PAUSE_S]`: how long it waits after a kill before it asks again.
"""

from __future__ import annotations

import sys
import time

import ray

PAUSE_S = 8.0
"""Long enough not to be taken for a program that never stops asking."""


class Stray:
    def hold(self) -> bool:
        time.sleep(3600)
        return True

    def here(self) -> bool:
        return True


def main() -> None:
    ray.init(address="auto", log_to_driver=False)
    pause_s = float(sys.argv[1]) if len(sys.argv) > 1 else PAUSE_S
    while True:
        held = False
        actor = ray.remote(num_gpus=1, num_cpus=0, max_concurrency=2)(Stray).remote()
        try:
            ray.get(actor.here.remote())
            held = True
            print(f"stray runs {time.time():.2f}", flush=True)
            ray.get(actor.hold.remote())
        except ray.exceptions.RayActorError:
            print(f"stray was {'killed' if held else 'refused'} {time.time():.2f}", flush=True)
            time.sleep(pause_s)


if __name__ == "__main__":
    main()
