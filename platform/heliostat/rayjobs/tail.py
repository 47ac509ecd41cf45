"""The log-tail WebSocket of `ray job submit` and `ray job logs -f`: text frames, closed with 1000 when the job is over.

While the job waits, the terminal gets a line whenever its position or reason changes. HTTP middleware does not see
WebSockets, so this handler authenticates by itself and answers 401 instead of the upgrade.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from fastapi import WebSocket
from fastapi.responses import PlainTextResponse
from heliostat_scheduler.core.lifecycle import TERMINAL
from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocketDisconnect

from heliostat.access import Principal, Unauthenticated
from heliostat.api.doors import Doors, doors_of
from heliostat.api.problems import Problem, problem_of
from heliostat.api.streams import Closing, Commits
from heliostat.rayjobs.details import NOT_RUNNING, message_of, place_of
from heliostat.store.tables import Job

STATUS_S = 1.0
"""Shortest time between two lines about waiting."""


async def tail(websocket: WebSocket, job_id: str) -> None:
    doors = doors_of(websocket)
    try:
        caller = doors.authenticate(websocket)
        await run_in_threadpool(doors.job, job_id, caller)
    except (Unauthenticated, Problem) as error:
        problem = problem_of(error)
        await websocket.send_denial_response(PlainTextResponse(problem.text(), problem.status, headers=problem.headers))
        return
    await websocket.accept()
    closing: Closing = websocket.app.state.closing
    gone = asyncio.ensure_future(_disconnected(websocket))
    try:
        with closing.commits(doors.store) as commits:
            async for text in _pieces(
                doors, commits, caller, job_id, lambda: not gone.done() and doors.still(websocket)
            ):
                await websocket.send_text(text)
        if not gone.done():
            await websocket.close(_close_code(closing, doors, websocket))
    except (WebSocketDisconnect, RuntimeError):
        return  # the reader went away in the middle of a frame
    finally:
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone


def _close_code(closing: Closing, doors: Doors, websocket: WebSocket) -> int:
    """1000: the job is over. 1012: the server restarts. 1008: the token is no longer good."""
    if closing.closed:
        return 1012
    return 1000 if doors.still(websocket) else 1008


async def _disconnected(websocket: WebSocket) -> None:
    """Returns when the client closes. Whatever it sends is ignored."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        continue


async def _pieces(
    doors: Doors, commits: Commits, caller: Principal, job_id: str, wanted: Callable[[], bool]
) -> AsyncIterator[str]:
    offset, known, told_at = 0, "", -STATUS_S
    clock = asyncio.get_running_loop().time
    while not commits.closing and wanted():
        try:
            row = await run_in_threadpool(doors.job, job_id, caller)
        except Problem:
            return  # deleted meanwhile
        over = row.state in TERMINAL
        text, offset = await run_in_threadpool(doors.control.logs, job_id, offset)
        if text:
            yield text
            continue
        if over:
            return
        said, line = await run_in_threadpool(_status_line, row, doors)
        if said != known and clock() - told_at >= STATUS_S:
            known, told_at = said, clock()
            if line:
                yield line
        await commits.wait(doors.options.poll_s)


def _status_line(row: Job, doors: Doors) -> tuple[str, str]:
    """What a waiting job's terminal shows, without and with the estimate (which changes all the time); empty while it runs."""
    if row.state not in NOT_RUNNING:
        return "", ""
    return place_of(row, doors.control), f"[heliostat] {message_of(row, doors.control)}\n"
