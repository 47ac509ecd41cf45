"""Changes and deaths under constant load: `python -m benchmarks.serving.failures [--only NAME] [--times 5]`.

A whole installation (`helio up`), one endpoint with a gateway, two gateway replicas, eight callers in a closed loop the whole time. Each
line is repeated five times; printed is the worst. An answer other than 2xx, a broken connection and a missing answer are failures; nothing is
sent twice, except in the lines that say SDK: there a failure is what a program that uses the SDK's `predict` still sees.

weights         helio endpoint traffic: from the call to the last answer of the version that lost its share
rollback        the same for helio endpoint rollback
replace         helio deploy of the next version, which takes over; the version before last is retired
scale           one replica to three and back (helio endpoint scale)
replica         kill -9 of one of two replicas of the version that answers
controller      kill -9 of Serve's controller, until there is another
control plane   kill -9 of the control plane and helio up again
gateway         kill -9 of one of two replicas of the gateway: plain callers, and SDK
only gateway    kill -9 of the gateway's only replica: plain callers, and SDK
proxy           kill -9 of HAProxy: the longest time without a good answer; plain callers, and SDK
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from heliostat.client.endpoints import Endpoint

from benchmarks.serving.house import CLIENTS, House, Load, house, kill9, until

MODEL = "scaled"
NAME = "busy"
EFFECTIVE_S = 1.0
PROXY_S = 8.0


@dataclass
class Line:
    """What came of one kind of change or death. allowed: failures that are no failure (calls that were inside what died)."""

    name: str
    allowed: int = 0
    effective_limit_s: float = 0.0
    gap_limit_s: float = 0.0
    answers: list[int] = field(default_factory=list)
    failed: list[Counter[str]] = field(default_factory=list)
    effective_s: list[float] = field(default_factory=list)
    gap_s: list[float] = field(default_factory=list)

    def add(self, load: Load, effective_s: float | None = None) -> None:
        self.answers.append(len(load.answers()))
        self.failed.append(Counter(what for _, what in load.failed()))
        self.gap_s.append(load.longest_gap_s())
        if effective_s is not None:
            self.effective_s.append(effective_s)

    @property
    def worst(self) -> int:
        return max((count.total() for count in self.failed), default=0)

    @property
    def holds(self) -> bool:
        late = bool(self.effective_limit_s) and max(self.effective_s) > self.effective_limit_s
        dark = bool(self.gap_limit_s) and max(self.gap_s) > self.gap_limit_s
        return self.worst <= self.allowed and not late and not dark and bool(self.answers)

    def told(self) -> str:
        kinds: Counter[str] = sum(self.failed, Counter())
        parts = [
            f"{self.name:22s} {len(self.answers)} x, {min(self.answers, default=0)} answers or more, failed at worst {self.worst}"
        ]
        if self.allowed < 10**6:
            parts.append(f"(allowed {self.allowed})")
        if self.effective_s:
            parts.append(f"effective after {max(self.effective_s):.2f} s at worst")
        parts.append(f"longest gap {max(self.gap_s, default=0.0):.2f} s")
        if kinds:
            parts.append(", ".join(f"{count} x {what}" for what, count in kinds.most_common(4)))
        return "  ".join(parts) + f"  {'holds' if self.holds else 'DOES NOT HOLD'}"


class Play:
    def __init__(self, place: House, key: str, times: int) -> None:
        self.place = place
        self.key = key
        self.times = times

    @property
    def endpoint(self) -> Endpoint:
        return self.place.client.endpoint(NAME)

    def load(self, *, sdk: bool = False) -> Load:
        return Load(self.endpoint.url, self.key, sdk=sdk)

    def serving(self) -> list[str]:
        """Versions with traffic."""
        return [row["version"] for row in self.endpoint.deployments if row["share"]]

    def whole(self) -> None:
        """Everything that was killed is back: two replicas of the version that answers, the gateways, and answers."""
        (version,) = self.serving()
        wanted = int(self.endpoint.data["gateways"])
        until(lambda: len(self.place.replicas(f"gw-{NAME}")) == wanted, "the gateways run", 60)
        until(lambda: len(self.place.replicas(f"ep-{NAME}-{version}")) == 2, "two replicas run", 90)

    def weights(self) -> list[Line]:
        line = Line("weights", effective_limit_s=EFFECTIVE_S)
        for _ in range(self.times):
            with self.load() as load:
                (old,) = self.serving()
                new = next(row["version"] for row in self.endpoint.deployments if row["version"] != old)
                line.add(load, self._moved(load, old, lambda: self.endpoint.traffic({new: 100})))  # noqa: B023
        return [line]

    def rollback(self) -> list[Line]:
        line = Line("rollback", effective_limit_s=EFFECTIVE_S)
        for _ in range(self.times):
            with self.load() as load:
                (old,) = self.serving()
                line.add(load, self._moved(load, old, self.endpoint.rollback))
        return [line]

    def _moved(self, load: Load, old: str, change: Callable[[], object]) -> float:
        """Seconds from the call until the last answer of the old version."""
        begun = time.monotonic()
        change()
        time.sleep(3)
        return max(0.0, load.last_of(f"200 {old}") - begun)

    def replace(self) -> list[Line]:
        line = Line("replace")
        for turn in range(self.times):
            with self.load() as load:
                before = [row["version"] for row in self.endpoint.deployments]
                made = self.place.client.deploy(f"{MODEL}:{turn % 2 + 1}", NAME, cpus=0.1, replicas=2)
                made.wait_ready(180)
                said = {f"200 {made.deployed}"}
                until(lambda: load.last(0.5) == said, "the new version answers alone", 10)  # noqa: B023
                until(lambda: self._left(before), "the one before last is gone", 90)  # noqa: B023
                time.sleep(1)
            line.add(load)
        return [line]

    def _left(self, before: list[str]) -> bool:
        """At most the one that a rollback returns to is left of these."""
        return len({row["version"] for row in self.endpoint.deployments} & set(before)) <= 1

    def scale(self) -> list[Line]:
        line = Line("scale 1 -> 3 -> 1")
        (version,) = self.serving()
        app = f"ep-{NAME}-{version}"
        self.endpoint.scale(1, version)
        until(lambda: len(self.place.replicas(app)) == 1, "one replica", 90)
        for _ in range(self.times):
            with self.load() as load:
                begun = time.monotonic()
                self.endpoint.scale(3, version)
                until(lambda: len(self.place.replicas(app)) == 3, "three replicas", 120)
                grown_s = time.monotonic() - begun
                time.sleep(2)
                self.endpoint.scale(1, version)
                until(lambda: len(self.place.replicas(app)) == 1, "one replica", 90)
                time.sleep(2)
                print(f"  grown after {grown_s:.1f} s", file=sys.stderr)
            line.add(load)
        self.endpoint.scale(2, version)
        self.whole()
        return [line]

    def replica(self) -> list[Line]:
        line = Line("replica")
        for _ in range(self.times):
            self.whole()
            with self.load() as load:
                kill9(self.place.replicas(f"ep-{NAME}-{self.serving()[0]}")[0])
                time.sleep(4)
            line.add(load)
        return [line]

    def controller(self) -> list[Line]:
        line = Line("controller")
        for _ in range(self.times):
            self.whole()
            with self.load() as load:
                (old,) = self.place.pids("ray::ServeController")
                kill9(old)
                until(lambda: self.place.pids("ray::ServeController") not in ([], [old]), "another controller", 60)  # noqa: B023
                time.sleep(4)
            line.add(load)
        return [line]

    def control_plane(self) -> list[Line]:
        line = Line("control plane")
        for _ in range(self.times):
            with self.load() as load:
                kill9(self.place.control_pid())
                time.sleep(2)
                self.place.up()
                (old,) = self.serving()
                new = next(row["version"] for row in self.endpoint.deployments if row["version"] != old)
                self.endpoint.traffic({new: 100})
                until(lambda: load.last(0.5) == {f"200 {new}"}, "changes work again", 30)  # noqa: B023
            line.add(load)
        return [line]

    def gateway(self) -> list[Line]:
        return [self._gateway("gateway", CLIENTS, sdk=False), self._gateway("gateway, SDK", 0, sdk=True)]

    def _gateway(self, name: str, allowed: int, *, sdk: bool) -> Line:
        line = Line(name, allowed=allowed)
        for _ in range(self.times):
            self.whole()
            with self.load(sdk=sdk) as load:
                kill9(self.place.replicas(f"gw-{NAME}")[0])
                time.sleep(5)
            line.add(load)
        return line

    def only_gateway(self) -> list[Line]:
        """With one gateway replica callers see its restart; the SDK waits for it."""
        self._gateways(1)
        lines = [self._gateway("only gateway", 10**6, sdk=False), self._gateway("only gateway, SDK", 0, sdk=True)]
        self._gateways(2)
        return lines

    def _gateways(self, number: int) -> None:
        (version,) = self.serving()
        reference = next(row["model"] for row in self.endpoint.deployments if row["version"] == version)
        made = self.place.client.deploy(
            f"{reference['name']}:{reference['version']}", NAME, cpus=0.1, replicas=2, gateways=number
        )
        made.wait_ready(180)
        until(lambda: self.serving() == [made.deployed], "it takes over", 10)
        self.whole()

    def proxy(self) -> list[Line]:
        lines = [Line("proxy", allowed=10**6, gap_limit_s=PROXY_S), Line("proxy, SDK")]
        for line in lines:
            for _ in range(self.times):
                self.whole()
                with self.load(sdk="SDK" in line.name) as load:
                    for pid in self.place.pids("haproxy", "-f"):
                        kill9(pid)
                    time.sleep(1)
                    until(lambda: any(what.startswith("2") for what in load.last(0.5)), "answers", 40)
                    time.sleep(2)
                line.add(load)
        return lines


PARTS = (
    "weights",
    "rollback",
    "replace",
    "scale",
    "replica",
    "controller",
    "control_plane",
    "gateway",
    "only_gateway",
    "proxy",
)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.failures", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=PARTS, help="may be repeated")
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    lines: list[Line] = []
    load_average = os.getloadavg()[0]
    broken = 0
    with house() as place:
        place.push(MODEL, 1.0, 2.0)
        for version in (1, 2):
            place.client.deploy(f"{MODEL}:{version}", NAME, cpus=0.1, replicas=2, gateways=2).wait_ready(240)
        key = place.client.endpoint(NAME).create_key("load")["key"]
        time.sleep(1)
        play = Play(place, key, options.times)
        for part in options.only or PARTS:
            try:
                found: list[Line] = getattr(play, part)()
            except RuntimeError:
                traceback.print_exc()
                broken += 1
                continue
            for line in found:
                print(line.told(), flush=True)
            lines += found
    told = [
        {"name": line.name, "times": len(line.answers), "answers": sum(line.answers), "failed_worst": line.worst,
         "effective_s_worst": round(max(line.effective_s, default=0.0), 3), "gap_s_worst": round(max(line.gap_s, default=0.0), 3),
         "holds": line.holds}
        for line in lines
    ]  # fmt: skip
    print(json.dumps({"clients": CLIENTS, "load_average": round(load_average, 2), "lines": told, "broken": broken}))
    return 0 if all(line.holds for line in lines) and not broken else 1


if __name__ == "__main__":
    sys.exit(main())
