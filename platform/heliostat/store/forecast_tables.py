"""What waiting jobs were told about their start, kept beside what came of it: the first estimate and the present one.

Times are epoch milliseconds. p50 and p90 are times of start; None: later than the horizon. `raw_*` is the first estimate before the
correction was applied: from it and the start that followed, the correction learns. `unknown`: of so many running jobs nothing was known of how
long they run; above 0 the times are a guess, which is neither told nor learned from.
"""

from __future__ import annotations

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from heliostat.store.tables import Base


class Forecast(Base):
    """started_ms: the job's first start after the estimate, once it is known."""

    __tablename__ = "forecast"
    __table_args__ = (Index(None, "started_ms"),)

    job: Mapped[str] = mapped_column(String(200), primary_key=True)
    queue: Mapped[str]
    first_ms: Mapped[int]
    first_p50_ms: Mapped[int | None]
    first_p90_ms: Mapped[int | None]
    raw_p50_ms: Mapped[int | None]
    raw_p90_ms: Mapped[int | None]
    made_ms: Mapped[int]
    p50_ms: Mapped[int | None]
    p90_ms: Mapped[int | None]
    samples: Mapped[int] = mapped_column(default=0)
    started_ms: Mapped[int | None]
    first_unknown: Mapped[int] = mapped_column(default=0)
    unknown: Mapped[int] = mapped_column(default=0)
