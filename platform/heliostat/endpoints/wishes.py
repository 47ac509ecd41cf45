"""What the load of a version asks for: its autoscaling policy leaves a wish in a file; the serving job's maximum follows it.

The scheduler then grows or shrinks the job like any other elastic one, by its queue's rights; what it grants comes back to the
policy as its cap. A wish that is old says nothing: its policy does not run, so the floor is all that is asked for.
"""

from __future__ import annotations

import json
from pathlib import Path

from heliostat_serving.spec import version_app, wish_file

from heliostat.store.endpoint_tables import Deployment

OLD_MS = 30_000
CALM_MS = 30_000


class Calm:
    """A wish may rise at once and falls only after half a minute: a policy knows nothing for a while after each change of its cap."""

    def __init__(self) -> None:
        self._lower_since_ms: dict[int, int] = {}

    def steadied(self, deployment: int, asked: int, wish: int, now_ms: int) -> int:
        """What to ask for, where `asked` is asked for now."""
        if wish >= asked:
            self._lower_since_ms.pop(deployment, None)
            return wish
        if now_ms - self._lower_since_ms.setdefault(deployment, now_ms) < CALM_MS:
            return asked
        del self._lower_since_ms[deployment]
        return wish


def wish_of(row: Deployment, folder: Path, now_ms: int) -> int:
    """Replicas that this version wants now, between its own limits; never less than one, the engine knows no empty job."""
    floor = max(1, row.replicas_min)
    if row.replicas_min == row.replicas_max:
        return floor
    try:
        body = json.loads(wish_file(str(folder), version_app(row.endpoint, row.number)).read_text(encoding="utf-8"))
        wish, at_ms = int(body["wish"]), int(body["at_ms"])
    except (OSError, ValueError, KeyError, TypeError):
        return floor
    if now_ms - at_ms > OLD_MS:
        return floor
    return min(max(floor, wish), row.replicas_max)
