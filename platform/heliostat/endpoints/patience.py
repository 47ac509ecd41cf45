"""For how long an application has failed without a replica that answers.

Ray calls an application DEPLOY_FAILED also when one replica fails its health check while a changed configuration is taken in, and
then starts that replica anew by itself. So the word alone ends nothing that has answered before: only silence that lasts does.
Kept in memory: after a restart of ours the patience begins anew.
"""

from __future__ import annotations

from heliostat.endpoints.serve_rest import FAILED, ServeState

VERSION_MS = 300_000
"""A replica that starts anew loads its model first."""
GATEWAY_MS = 60_000


class Patience:
    """Owned by one thread."""

    def __init__(self) -> None:
        self._since_ms: dict[str, int] = {}

    def look(self, state: ServeState, now_ms: int) -> dict[str, int]:
        """Application -> milliseconds of silence, of those that have failed and do not answer."""
        silent = [name for name, app in state.applications.items() if app.status == FAILED and not app.answers]
        self._since_ms = {name: self._since_ms.get(name, now_ms) for name in silent}
        return {name: now_ms - since_ms for name, since_ms in self._since_ms.items()}
