"""Who is asking, and what that lets them do.

A token has one role in one project; `*` is every project. viewer reads, member also submits and changes jobs and models of the project,
admin also makes and revokes the project's tokens. An admin of `*` is the platform's administrator: queue file, all projects.
What belongs to another project does not exist for a principal: the doors answer 404, never 403.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

ALL_PROJECTS = "*"
DEFAULT_PROJECT = "default"


class Role(StrEnum):
    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"


class Action(StrEnum):
    READ = "read"
    SUBMIT = "submit"
    CHANGE = "change jobs"
    MODELS = "change models"
    TOKENS = "manage tokens"
    PLATFORM = "administer the platform"


ROLE_MAY: dict[Role, frozenset[Action]] = {
    Role.VIEWER: frozenset({Action.READ}),
    Role.MEMBER: frozenset({Action.READ, Action.SUBMIT, Action.CHANGE, Action.MODELS}),
    Role.ADMIN: frozenset({Action.READ, Action.SUBMIT, Action.CHANGE, Action.MODELS, Action.TOKENS}),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """The holder of a valid token. `user` is who is recorded as the actor."""

    token_id: str
    user: str
    project: str
    role: Role
    expires_ms: int | None = None

    @property
    def everywhere(self) -> bool:
        return self.project == ALL_PROJECTS

    @property
    def home(self) -> str:
        """The project that submissions without one belong to."""
        return DEFAULT_PROJECT if self.everywhere else self.project

    def may(self, action: Action) -> bool:
        if action is Action.PLATFORM:
            return self.everywhere and self.role is Role.ADMIN
        return action in ROLE_MAY[self.role]

    def sees(self, project: str) -> bool:
        return self.everywhere or self.project == project

    def scope(self) -> tuple[str, ...] | None:
        """The projects of a list, None for all."""
        return None if self.everywhere else (self.project,)
