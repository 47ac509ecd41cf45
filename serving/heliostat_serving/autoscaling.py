"""Serve's autoscaling under the scheduler's grant.

`GrantedPolicy` runs inside Serve's controller, once per tick and deployment: it takes Serve's default answer (requests per replica),
writes it down as the *wish* for the control plane, and answers no more than the grant. The wish goes out as a small file, so nothing
here ever waits for anybody. The grant comes with the document as `max_replicas`: a change of that is applied in place, while a change
of a policy's own arguments counts as new code and restarts every replica (measured). Floor and delays are applied by Serve
afterwards. A wake-up from zero bypasses every policy: a zero grant is therefore enforced by the gateway (`Target.paused`).
"""

from __future__ import annotations

import json
import logging
import math
import time
from typing import Any  # Any: Serve's context

from heliostat_serving.spec import wish_file

logger = logging.getLogger("ray.serve")
REPEAT_S = 5.0


class GrantedPolicy:
    def __init__(self, app: str, wish_dir: str = "") -> None:
        self._app = app
        self._wish_dir = wish_dir
        self._said: tuple[int, int, int] | None = None
        self._said_s = 0.0
        self._failing = False

    def __call__(self, ctx: Any) -> tuple[float, dict[str, Any]]:
        from ray.serve.autoscaling_policy import replica_queue_length_autoscaling_policy

        answer, state = replica_queue_length_autoscaling_policy(ctx)
        queued = math.ceil(ctx.total_queued_requests or 0)
        self._say(math.ceil(answer), ctx.current_num_replicas, queued)
        return min(answer, ctx.capacity_adjusted_max_replicas), state

    def _say(self, wish: int, running: int, queued: int) -> None:
        """Rewritten when it changes, and now and then, so that a reader knows whether the controller lives."""
        now_s = time.monotonic()
        said = (wish, running, queued)
        if not self._wish_dir or (said == self._said and now_s - self._said_s < REPEAT_S):
            return
        path = wish_file(self._wish_dir, self._app)
        body = {
            "app": self._app,
            "wish": wish,
            "running": running,
            "queued": queued,
            "at_ms": time.time_ns() // 1_000_000,
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            part.write_text(json.dumps(body))
            part.replace(path)
        except OSError as error:
            if not self._failing:
                logger.error("The wish of %s cannot be written to %s: %s", self._app, path, error)
            self._failing = True
            return
        self._failing = False
        self._said, self._said_s = said, now_s
