"""Which version answers. A named version wins (protocol path or pin header); else the weights decide, by chance or by a sticky hash.

The sticky hash puts a value at a fixed point of [0, 1) and the versions side by side by number, so a change of weights from 90/10 to
80/20 moves only those who must move. A model's name in the protocol's path narrows both to the versions of that model; the endpoint's
own name stands for all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import accumulate

from heliostat_serving.spec import GatewayConfig, Key, Target
from heliostat_serving.wire.faults import Fault

PIN = b"x-heliostat-version"


class Group:
    """The versions that a model's name in a path stands for."""

    __slots__ = ("_sums", "live", "name", "only", "targets")

    def __init__(self, name: str, targets: Sequence[Target]) -> None:
        self.name = name
        self.targets = tuple(sorted(targets, key=lambda target: target.n))
        self.live = tuple(target for target in self.targets if target.weight > 0)
        self.only = self.live[0] if len(self.live) == 1 else None
        self._sums = tuple(accumulate(target.weight for target in self.live))

    @property
    def main(self) -> Target | None:
        """The version that most calls get: the one that metadata and OpenAPI describe."""
        return max(self.live or self.targets, key=lambda target: target.weight, default=None)

    def at(self, point: float) -> Target:
        """`point` in [0, 1)."""
        place = point * self._sums[-1]
        return next(target for target, upto in zip(self.live, self._sums, strict=True) if place < upto)

    def find(self, name: str) -> Target:
        """A version by deployment label, registry number or alias. Where several are meant (a version that was deployed twice), one
        with traffic is, and of several the newest."""
        meant = [
            target
            for target in self.targets
            if name in (str(target.model_version), target.label) or name in target.aliases
        ]
        if not meant:
            names = ", ".join(f"{target.model_version} ({target.label})" for target in self.targets)
            raise Fault("unknown_version", f"There is no version {name[:50]} here.", f"Versions are {names or 'none'}.")
        return max(
            meant, key=lambda target: (target.label == name, target.model == self.name, target.weight > 0, target.n)
        )


class Split:
    def __init__(self, config: GatewayConfig, chance: Callable[[], float]) -> None:
        self._all = Group(config.endpoint, config.targets)
        models = {target.model for target in config.targets}
        self._groups = {
            **{model: Group(model, [target for target in config.targets if target.model == model]) for model in models},
            "": self._all,
            config.endpoint: self._all,
        }
        self._chance = chance
        self._salt = config.endpoint.encode()
        kind, _, header = config.sticky.partition(":")
        self._sticky_key = kind == "key"
        self._sticky_header = header.lower().encode()
        self._retry_after_s = float(config.limits.retry_after_s)

    @property
    def targets(self) -> tuple[Target, ...]:
        return self._all.targets

    @property
    def ready(self) -> bool:
        """Whether an ordinary call can be answered."""
        return any(not target.paused for target in self._all.live)

    def group(self, model: str = "") -> Group:
        """The protocol's model name is the registry's, or the endpoint's own, which stands for all."""
        found = self._groups.get(model)
        if found is None:
            names = ", ".join(sorted({target.model for target in self.targets})) or "no model yet"
            raise Fault("not_found", f"There is no model {model[:100]} here.", f"This endpoint serves {names}.")
        return found

    def choose(self, key: Key, headers: dict[bytes, bytes], named: str = "", model: str = "") -> Target:
        """`named`, `model`: the version and the model in the protocol's path."""
        group = self.group(model)
        pin = headers.get(PIN)
        wanted = named or (pin.decode("latin-1") if pin else "")
        target = _named(group, wanted, key) if wanted else self._drawn(group, key, headers)
        if target.paused:
            raise Fault(
                "no_grant",
                f"{target.model} {target.label} has no replica granted now.",
                "Try again later; helio endpoint show says who holds the capacity.",
                self._retry_after_s,
            )
        return target

    def _drawn(self, group: Group, key: Key, headers: dict[bytes, bytes]) -> Target:
        if group.only is not None:
            return group.only
        if not group.live:
            of = "" if group is self._all else f" of {group.name}"
            raise Fault(
                "no_version_ready", f"No version{of} takes traffic now.", "Try again later.", self._retry_after_s
            )
        return group.at(self._point(key, headers))

    def _point(self, key: Key, headers: dict[bytes, bytes]) -> float:
        value = (
            key.id.encode() if self._sticky_key else headers.get(self._sticky_header) if self._sticky_header else None
        )
        if value is None:
            return self._chance()
        digest = hashlib.blake2b(value, digest_size=7, key=self._salt[:64]).digest()
        return int.from_bytes(digest, "big") / (1 << 56)


def _named(group: Group, name: str, key: Key) -> Target:
    target = group.find(name)
    if target.weight == 0 and not key.pin:
        raise Fault(
            "pin_forbidden",
            f"{target.label} gets no traffic yet, and key {key.id} may not name it.",
            "Leave the version away, or use a key that may pin: helio key create ENDPOINT --pin.",
        )
    return target
