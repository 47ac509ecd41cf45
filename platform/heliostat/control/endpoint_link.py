"""Between the control loop and the endpoint service: each tells the other by leaving a note, neither waits."""

from __future__ import annotations

from concurrent.futures import Future

from heliostat.control.inbox import Inbox
from heliostat.control.messages import Asked, JobTold, ServingSaid

ACTOR = "endpoints"


class LoopLink:
    """The control loop, as the endpoint service sees it (`endpoints.service.ControlLoop`)."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def said(self, job: str, attempt: int, what: str, text: str) -> None:
        self._inbox.post(ServingSaid(job, attempt, what, text))

    def cancel(self, job: str) -> None:
        """The answer shows in the job's state; a job that has ended is none of our business."""
        self._inbox.post(Asked("cancel", job, ACTOR, Future()))

    def changed(self, job: str) -> None:
        self._inbox.post(JobTold(job, new=False))
