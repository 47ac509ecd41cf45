"""Who may ask: tokens, principals, permissions."""

from heliostat.access.principal import ALL_PROJECTS, DEFAULT_PROJECT, Action, Principal, Role
from heliostat.access.tokens import Tokens, Unauthenticated, project_exists

__all__ = [
    "ALL_PROJECTS",
    "DEFAULT_PROJECT",
    "Action",
    "Principal",
    "Role",
    "Tokens",
    "Unauthenticated",
    "project_exists",
]
