"""Access tokens: made, listed and revoked. The token itself is shown once, when it is made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import cast

from heliostat.client.asking import seconds
from heliostat.client.listing import Listing
from heliostat.render.cluster import token_table
from heliostat.wire.call import Caller, segment
from heliostat.wire.shapes import TokenJson


class Tokens:
    """`heliostat.tokens`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def create(
        self,
        *,
        role: str = "member",
        project: str | None = None,
        name: str | None = None,
        expires: float | str | timedelta | None = "30d",
    ) -> TokenJson:
        """A new token; its text is in `["token"]` and can never be read again. expires: from now, None for never."""
        asked = {"role": role, "project": project, "name": name, "expires_s": seconds(expires, "expires")}
        body = {key: value for key, value in asked.items() if value is not None}
        return cast("TokenJson", self._caller.json("POST", "/tokens", body))

    def ls(self) -> Listing[TokenJson]:
        items = self._caller.json("GET", "/tokens")["items"]
        return Listing(items, lambda tokens: token_table(tokens, datetime.now(UTC)), "no tokens")

    def revoke(self, id: str) -> None:
        """From now on the token is refused."""
        self._caller.json("DELETE", f"/tokens/{segment(id)}")

    def __call__(self) -> Listing[TokenJson]:
        return self.ls()
