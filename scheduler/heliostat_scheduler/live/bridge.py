"""The bridge process: `python -m heliostat_scheduler.live.bridge`, the only Ray driver of the platform.

Commands come as lines of `protocol.py` on standard input, facts leave on standard output; everything else that anybody prints
(Ray does) goes to standard error. It ends when its parent closes the pipe, when a bridge of a newer term has taken the lease
board, or when the GCS does not answer any more: being started again is how it recovers.
It connects to the cluster that RAY_ADDRESS names, with RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH as Ray reads them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import queue
import sys
import threading
import time
import traceback

from heliostat_scheduler.live.protocol import Fact, Note, encode

FAILED_START = 3


class Pipes:
    """Standard input and output as the protocol's own; file descriptor 1 becomes standard error for everybody else."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        os.dup2(2, 1)
        self._facts: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._commands: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._unsaid = 0
        threading.Thread(target=self._read, name="stdin", daemon=True).start()
        threading.Thread(target=self._write, name="stdout", daemon=True).start()

    def next_line(self) -> bytes:
        """The next line of the parent; waits for it."""
        return self._commands.get()

    def say(self, fact: Fact) -> None:
        self._unsaid += 1
        self._facts.put(encode(fact))

    def flush(self, patience_s: float = 2.0) -> None:
        """Until everything said is in the pipe."""
        deadline = time.monotonic() + patience_s
        while self._unsaid and time.monotonic() < deadline:
            time.sleep(0.005)

    def _read(self) -> None:
        for line in sys.stdin.buffer:
            self._commands.put(line)
        os._exit(0)  # the parent is gone: nobody to work for, and nobody to tell

    def _write(self) -> None:
        while True:
            line = self._facts.get()
            while line:
                try:
                    line = line[os.write(self._out, line) :]
                except BrokenPipeError:
                    os._exit(0)
            self._unsaid -= 1


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m heliostat_scheduler.live.bridge")
    parser.add_argument("--slot-cpu-milli", type=int, default=1000, help="CPU part of each GPU's slot")
    parser.add_argument(
        "--reserve-cpu-milli", type=int, default=0, help="never leased; 0: the larger of 2 cores and a tenth"
    )
    options = parser.parse_args(argv)
    pipes = Pipes()  # before Ray is imported: from here on the end of the parent is noticed
    asyncio.run(_live(pipes, options.slot_cpu_milli, options.reserve_cpu_milli))


async def _live(pipes: Pipes, slot_cpu_milli: int, reserve_cpu_milli: int) -> None:
    try:
        from heliostat_scheduler.live.session import serve

        code = await serve(pipes.next_line, pipes.say, slot_cpu_milli, reserve_cpu_milli)
    except Exception as error:  # noqa: BLE001 - the parent is told why, whatever it is
        traceback.print_exc()
        pipes.say(Note("error", "bridge_failed", {"error": f"{type(error).__name__}: {error}"[:1000]}))
        code = FAILED_START
    pipes.flush()
    sys.stderr.flush()
    os._exit(code)  # not sys.exit: neither the thread that reads nor Ray's driver may hold us up, or tear anything down


if __name__ == "__main__":
    main()
