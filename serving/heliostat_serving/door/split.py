"""Which version answers. A named version wins (protocol path or pin header); else the weights decide, by chance or by a sticky hash.

The sticky hash puts a value at a fixed point of [0, 1) and the versions side by side by number, so a change of weights from 90/10 to
80/20 moves only those who must move.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import accumulate

from heliostat_serving.spec import GatewayConfig, Key, Target
from heliostat_serving.wire.faults import Fault

PIN = b"x-heliostat-version"


class Split:
    def __init__(self, config: GatewayConfig, chance: Callable[[], float]) -> None:
        self.targets = tuple(sorted(config.targets, key=lambda target: target.n))
        self._live = tuple(target for target in self.targets if target.weight > 0)
        self._sums = tuple(accumulate(target.weight for target in self._live))
        self._only = self._live[0] if len(self._live) == 1 else None
        self._chance = chance
        self._salt = config.endpoint.encode()
        kind, _, header = config.sticky.partition(":")
        self._sticky_key = kind == "key"
        self._sticky_header = header.lower().encode()
        self._retry_after_s = float(config.limits.retry_after_s)

    @property
    def ready(self) -> bool:
        """Whether an ordinary call can be answered."""
        return any(not target.paused for target in self._live)

    @property
    def main(self) -> Target | None:
        """The version that most calls get: the one that metadata and OpenAPI describe."""
        return max(self._live or self.targets, key=lambda target: target.weight, default=None)

    def choose(self, key: Key, headers: dict[bytes, bytes], named: str = "") -> Target:
        """`named`: the version in the protocol's path."""
        pin = headers.get(PIN)
        wanted = named or (pin.decode("latin-1") if pin else "")
        target = self._named(wanted, key) if wanted else self._drawn(key, headers)
        if target.paused:
            raise Fault(
                "no_grant",
                f"{target.model} {target.label} has no replica granted now.",
                "Try again later; helio endpoint show says who holds the capacity.",
                self._retry_after_s,
            )
        return target

    def find(self, name: str) -> Target:
        """A version by registry number, deployment label or alias."""
        for target in reversed(self.targets):
            if name in (str(target.model_version), target.label) or name in target.aliases:
                return target
        names = ", ".join(f"{target.model_version} ({target.label})" for target in self.targets)
        raise Fault("unknown_version", f"There is no version {name[:50]} here.", f"Versions are {names or 'none'}.")

    def _named(self, name: str, key: Key) -> Target:
        target = self.find(name)
        if target.weight == 0 and not key.pin:
            raise Fault(
                "pin_forbidden",
                f"{target.label} gets no traffic yet, and key {key.id} may not name it.",
                "Leave the version away, or use a key that may pin.",
            )
        return target

    def _drawn(self, key: Key, headers: dict[bytes, bytes]) -> Target:
        if self._only is not None:
            return self._only
        if not self._live:
            raise Fault("no_version_ready", "No version takes traffic now.", "Try again later.", self._retry_after_s)
        at = self._point(key, headers) * self._sums[-1]
        return next(target for target, upto in zip(self._live, self._sums, strict=True) if at < upto)

    def _point(self, key: Key, headers: dict[bytes, bytes]) -> float:
        value = (
            key.id.encode() if self._sticky_key else headers.get(self._sticky_header) if self._sticky_header else None
        )
        if value is None:
            return self._chance()
        digest = hashlib.blake2b(value, digest_size=7, key=self._salt[:64]).digest()
        return int.from_bytes(digest, "big") / (1 << 56)
