"""Which control plane acts: each one begins a term, and the bridge refuses whoever speaks in an older one."""

from __future__ import annotations

from sqlalchemy.orm import Session

from heliostat.store.tables import Setting

TERM = "executor_term"
HEAD = "ray_head_node"


def begin(session: Session) -> tuple[int, str]:
    """Raise the term. Returns it, and the Ray head node that the last control plane worked with."""
    row = session.get(Setting, TERM)
    term = (int(row.value) if row is not None else 0) + 1
    session.merge(Setting(key=TERM, value=str(term)))
    head = session.get(Setting, HEAD)
    return term, head.value if head is not None else ""


def keep_head(session: Session, head_node: str) -> None:
    session.merge(Setting(key=HEAD, value=head_node))
