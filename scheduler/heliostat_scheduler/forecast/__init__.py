"""Seeded forward simulation with the live engine: when a job starts, and what would change if."""

from heliostat_scheduler.forecast.arrivals import like_before
from heliostat_scheduler.forecast.eta import Correction, Estimate, estimates
from heliostat_scheduler.forecast.future import Arrival, Course, Future, Grid, begun_jobs, waiting_jobs
from heliostat_scheduler.forecast.futures import futures
from heliostat_scheduler.forecast.lengths import Lengths, Ran

__all__ = [
    "Arrival",
    "Correction",
    "Course",
    "Estimate",
    "Future",
    "Grid",
    "Lengths",
    "Ran",
    "begun_jobs",
    "estimates",
    "futures",
    "like_before",
    "waiting_jobs",
]
