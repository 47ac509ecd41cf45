"""In a worker whose process is kept: end the old training loop and forget what it left behind, so that the next group can begin.

Runs in the actor's main thread. What is forgotten: the process group (and with it the peers), the old model as far as nobody else holds it,
CUDA memory that PyTorch caches. What stays is the user's own: modules and their globals, open files, threads, environment.
Libraries that keep the rank or the size of the world in their modules would compute on with the old ones, so their processes are not kept.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterable

from heliostat_jobs.train.hold import ObedientTrainFnUtils
from heliostat_jobs.train.ray_train_private import get_train_context, get_train_fn_utils

KEEPS_ITS_WORLD = ("accelerate", "colossalai", "deepspeed", "horovod", "jax", "megatron", "tensorflow")


def leave(patience_s: float) -> str:
    """Why this process cannot be used again; empty when it is free for the next group."""
    if found := keeps_its_world(sys.modules):
        return f"{found} keeps the old group's ranks in its module"
    utils = get_train_fn_utils()
    if not isinstance(utils, ObedientTrainFnUtils):
        return "the script replaced Ray Train's functions"
    utils.leaving.set()
    return _why_not_left(patience_s) or _forget()


def keeps_its_world(modules: Iterable[str]) -> str:
    """The first loaded library that remembers the world by itself; empty when there is none."""
    return next((name for name in KEEPS_ITS_WORLD if name in modules), "")


def _why_not_left(patience_s: float) -> str:
    runner = get_train_context().execution_context.training_thread_runner
    thread: threading.Thread | None = runner._thread
    if thread is None:
        return "training had not begun"
    thread.join(patience_s)
    if thread.is_alive():
        return f"the script did not come back from its loop within {patience_s:g} s"
    if runner.get_error() is None:
        return "the script caught the exception that ends its loop"
    runner._exc = None  # its frames hold the old model
    return ""


def _forget() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available():
        if torch.distributed.rpc.is_available() and torch.distributed.rpc.api._is_current_rpc_agent_set():
            return "torch.distributed.rpc is in use"
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    gc.collect()  # DDP and the process group's sockets are in cycles
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return ""
