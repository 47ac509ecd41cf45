"""Ray packages (working_dir and py_modules archives), kept per project and checked before they are kept."""

from heliostat.packages.archive import BadPackage, Limits
from heliostat.packages.keeping import Packages, ray_name, uri_name

__all__ = ["BadPackage", "Limits", "Packages", "ray_name", "uri_name"]
