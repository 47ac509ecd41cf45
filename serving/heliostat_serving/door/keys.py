"""API keys and their limits. A key is looked up by its SHA-256, so the table holds nothing that could be used, and the time of the
lookup says nothing about a key that is not in it. Limits are token buckets; with several replicas each grants its share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from heliostat_serving.spec import GatewayConfig, Key
from heliostat_serving.wire.faults import Fault


class Bucket:
    """Tokens come at `rate_per_s`, up to `burst`."""

    __slots__ = ("at_s", "burst", "rate_per_s", "tokens")

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        self.rate_per_s = rate_per_s
        self.burst = burst
        self.tokens = burst
        self.at_s = now_s

    def take(self, now_s: float) -> float:
        """0 when a token was taken, else the seconds until there is one."""
        self.tokens = min(self.burst, self.tokens + (now_s - self.at_s) * self.rate_per_s)
        self.at_s = now_s
        if self.tokens >= 1.0:
            self.tokens -= 1.0
            return 0.0
        return (1.0 - self.tokens) / self.rate_per_s

    def resize(self, rate_per_s: float, burst: float, now_s: float) -> None:
        """New limits; what was used up stays used up."""
        self.tokens = min(burst, self.tokens + (now_s - self.at_s) * self.rate_per_s)
        self.at_s, self.rate_per_s, self.burst = now_s, rate_per_s, burst


class KeyRing:
    """The keys of one configuration. Buckets outlive a change of configuration, or every change would refill them."""

    def __init__(
        self,
        config: GatewayConfig,
        before: KeyRing | None,
        clock_s: Callable[[], float],
        wall_ms: Callable[[], int],
    ) -> None:
        self._keys = {key.sha256: key for key in config.keys}
        self._clock_s = clock_s
        self._wall_ms = wall_ms
        self._buckets: dict[str, Bucket] = {}
        now_s = clock_s()
        for key in config.keys:
            if key.rate_per_s > 0:
                self._buckets[key.id] = _bucket(key, config.replicas, before, now_s)

    def find(self, headers: dict[bytes, bytes]) -> Key:
        """Whose call it is: `Authorization: Bearer <key>` or `X-API-Key: <key>`."""
        given = headers.get(b"x-api-key")
        if given is None:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer":
                raise Fault("unauthenticated", "The call has no API key.", "Send Authorization: Bearer <key>.")
        key = self._keys.get(hashlib.sha256(given.strip()).hexdigest())
        if key is None:
            raise Fault("unauthenticated", "The API key is unknown or revoked.", "Ask for one: helio key create.")
        if key.expires_ms is not None and self._wall_ms() >= key.expires_ms:
            raise Fault("key_expired", f"The API key {key.id} has expired.", "Ask for a new one: helio key create.")
        return key

    def spend(self, key: Key) -> None:
        """Count one call against the key's limit."""
        bucket = self._buckets.get(key.id)
        if bucket is None:
            return
        wait_s = bucket.take(self._clock_s())
        if wait_s > 0:
            raise Fault(
                "rate_limited", f"Key {key.id} may make {key.rate_per_s:g} calls per second.", "Slow down.", wait_s
            )

    def bucket(self, key_id: str) -> Bucket | None:
        return self._buckets.get(key_id)


def _bucket(key: Key, replicas: int, before: KeyRing | None, now_s: float) -> Bucket:
    rate_per_s = key.rate_per_s / replicas
    burst = max(1.0, (key.burst or key.rate_per_s) / replicas)
    kept = before.bucket(key.id) if before is not None else None
    if kept is None:
        return Bucket(rate_per_s, burst, now_s)
    kept.resize(rate_per_s, burst, now_s)
    return kept
