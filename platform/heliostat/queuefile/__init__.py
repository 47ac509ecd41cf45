"""queues.yaml: the tree of queues, what each is guaranteed and limited to, and who may submit what."""

from heliostat.queuefile.check import DEFAULT_TEXT, parse, shown, with_quotas
from heliostat.queuefile.diff import Change, diff
from heliostat.queuefile.promises import doubts
from heliostat.queuefile.reading import BadQueueFile, Problem
from heliostat.queuefile.tree import Denied, Queue, QueueFile, Rule, class_of

__all__ = [
    "DEFAULT_TEXT",
    "BadQueueFile",
    "Change",
    "Denied",
    "Problem",
    "Queue",
    "QueueFile",
    "Rule",
    "class_of",
    "diff",
    "doubts",
    "parse",
    "shown",
    "with_quotas",
]
