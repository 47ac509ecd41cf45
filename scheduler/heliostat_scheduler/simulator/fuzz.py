"""`make fuzz`: seeded fault simulations until a number of cycles, each cycle followed by the fixpoint check.

After every plan was obeyed, the inputs and the clock are frozen and the engine decides again until it has nothing to say (at most
SETTLE cycles), and EXTRA times more: a decision then is a violation, as is an eviction of something that the frozen cycles started
(the engine would trade places with itself). Every FRESH_EVERY cycles an engine restored from bytes, which has looked nothing up before,
has to decide the same. A violation names its seed; a seed that ever failed belongs into the regression list of
tests/simulation/test_faults.py.
"""

from __future__ import annotations

import argparse
import time

from heliostat_scheduler.core.decisions import Discarded, Plan, Preempt, Start
from heliostat_scheduler.core.engine import Engine
from heliostat_scheduler.simulator.faults import FaultRun, Violation
from heliostat_scheduler.simulator.progress import Progress

SETTLE = 12
EXTRA = 5
FRESH_EVERY = 10


class FuzzRun(FaultRun):
    """A fault run that asks for the fixpoint after each of its steps."""

    cycles = 0

    def step(self) -> None:
        super().step()
        self.cycles += 1
        self.settle()
        self.check()

    def settle(self) -> None:
        started: set[str] = set()
        for _ in range(SETTLE):
            if not self.frozen(started):
                break
        else:
            raise Violation(f"seed {self.seed}: no fixpoint after {SETTLE} frozen cycles at {self.now_ms} ms")
        for _ in range(EXTRA):
            if self.frozen(started):
                raise Violation(f"seed {self.seed}: a decision after the fixpoint at {self.now_ms} ms")

    def decided(self) -> Plan:
        """The next plan; now and then beside that of an engine that has looked nothing up before."""
        fresh = Engine.restore(self.engine.snapshot()) if self.cycles % FRESH_EVERY == 0 else None
        plan = self.engine.decide(self.now_ms)
        if fresh is not None and fresh.decide(self.now_ms) != plan:
            raise Violation(f"seed {self.seed}: a restored engine decides otherwise at {self.now_ms} ms")
        return plan

    def frozen(self, started: set[str]) -> bool:
        """One cycle with nothing new. True if anything was decided."""
        self.cycles += 1
        orders = [order for order in self.decided().decisions if not isinstance(order, Discarded)]
        for order in orders:
            if isinstance(order, Preempt) and order.job_id in started:
                raise Violation(f"seed {self.seed}: {order.job_id} was started and evicted with frozen inputs")
            if isinstance(order, Start):
                started.add(order.job_id)
        self.carry_out(orders)
        return bool(orders)


def fuzz(arguments: argparse.Namespace) -> dict[str, object]:
    """Runs seeds `--seed`, +1, ... until `--cycles` cycles are done. `failed` lists the violations, one per seed."""
    began = time.monotonic()
    cycles, seed, failures = 0, arguments.seed, []
    with Progress("fuzz", arguments.cycles) as bar:
        while cycles < arguments.cycles:
            run = FuzzRun(seed)
            try:
                run.run()
            except Violation as violation:
                failures.append(str(violation))
            cycles, seed = cycles + run.cycles, seed + 1
            bar.at(cycles)
    return {
        "suite": "fuzz",
        "cycles": cycles,
        "seeds": [arguments.seed, seed - 1],
        "failed": len(failures),
        "failures": failures,
        "wall_s": round(time.monotonic() - began, 2),
    }
