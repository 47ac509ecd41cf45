"""The Ray cluster that `up` wrote down: read again whenever its file changes."""

from __future__ import annotations

import threading
from pathlib import Path

from heliostat.local import records
from heliostat.local.records import RayRecord


class RecordedHead:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp = (0, 0)
        self._record: RayRecord | None = None

    def record(self) -> RayRecord | None:
        """The cluster in use; None when `up` never named one."""
        with self._lock:
            try:
                status = self._path.stat()
            except OSError:
                self._record = None
                self._stamp = (0, 0)
                return None
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                self._record, self._stamp = records.read(self._path, RayRecord), stamp
            return self._record

    def alive(self) -> bool:
        """False only when the head is known to be dead; of a cluster that was joined nothing is known here."""
        record = self.record()
        return record is not None and record.alive()
