"""The control plane's memory: SQL tables, one writer, and the functions that keep them consistent."""

from heliostat.store import endpoint_tables, forecast_tables, model_tables
from heliostat.store.errors import StaleJob, StoreError, StoreUnavailable, UnknownJob
from heliostat.store.store import Store

__all__ = [
    "StaleJob",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "UnknownJob",
    "endpoint_tables",
    "forecast_tables",
    "model_tables",
]
