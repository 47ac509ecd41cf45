"""Virtual time: benchmarks, conformance scenarios, and users' own traces through the engine that runs live."""

from heliostat_scheduler.simulator.compare import Comparison, compare, policies

__all__ = ["Comparison", "compare", "policies"]
