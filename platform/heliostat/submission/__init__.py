"""Submissions: what is asked, whether it may enter, and how it is entered. Both front doors come through here."""

from heliostat.submission.capacity import Capacity, capacity_of
from heliostat.submission.deciding import Accepted, accept
from heliostat.submission.request import Asked, Refused
from heliostat.submission.storing import check_dependencies, enter

__all__ = ["Accepted", "Asked", "Capacity", "Refused", "accept", "capacity_of", "check_dependencies", "enter"]
