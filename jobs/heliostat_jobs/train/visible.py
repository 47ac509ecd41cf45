"""A process that has used CUDA sees the devices it saw first, whatever CUDA_VISIBLE_DEVICES says later.

Ray Train sets that variable to the union of a group's GPUs on the node, and finds a worker's device by the position of its GPU in it.
When a kept process joins a group with other GPUs, the position would change and CUDA's numbering would not: training would go on on
somebody else's device. So the variable of such a process stays as it was.
"""

from __future__ import annotations

import os
import sys

VARIABLE = "CUDA_VISIBLE_DEVICES"

_seen: list[str | None] = []


def keep_visible_devices() -> None:
    """Called whenever this process joins a group, after Ray Train has set the variable."""
    torch = sys.modules.get("torch")
    used = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    if not _seen or not used:
        _seen[:] = [os.environ.get(VARIABLE)]
    elif _seen[0] is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = _seen[0]
