"""What can go wrong when processes of this machine are started or ended, each with the thing to do now."""

from __future__ import annotations


class LocalError(Exception):
    """`code` is stable for programs, `remedy` is for people."""

    def __init__(self, code: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code = code
        self.remedy = remedy
