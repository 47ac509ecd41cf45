"""The scheduler's pure core: events in, decisions out. Standard library only."""

from heliostat_scheduler.core.decisions import Decision, Discarded, Plan, Preempt, Resize, Start, Stop
from heliostat_scheduler.core.engine import Engine, QueueUsage
from heliostat_scheduler.core.events import Event, IllegalEvent
from heliostat_scheduler.core.explain import Check, Explanation
from heliostat_scheduler.core.model import (
    CPU,
    DEFAULT_FLAVOR,
    MEMORY,
    PRIORITY_CLASSES,
    UNLIMITED,
    JobSpec,
    NodeSpec,
    Policy,
    Preemptibility,
    QueueSpec,
    SlotSpec,
    TaskPlace,
    TaskShape,
)
from heliostat_scheduler.core.reasons import Reason, ReasonCode, Remedy, RemedyKind

__all__ = [
    "CPU",
    "DEFAULT_FLAVOR",
    "MEMORY",
    "PRIORITY_CLASSES",
    "UNLIMITED",
    "Check",
    "Decision",
    "Discarded",
    "Engine",
    "Event",
    "Explanation",
    "IllegalEvent",
    "JobSpec",
    "NodeSpec",
    "Plan",
    "Policy",
    "Preempt",
    "Preemptibility",
    "QueueSpec",
    "QueueUsage",
    "Reason",
    "ReasonCode",
    "Remedy",
    "RemedyKind",
    "Resize",
    "SlotSpec",
    "Start",
    "Stop",
    "TaskPlace",
    "TaskShape",
]
