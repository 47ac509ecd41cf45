"""The model registry: immutable versions of models, aliases that move, and where each came from.

row = resolve(session, project, "digits@champion")     # or "digits:3", or "digits" for the newest
uri = artifact_uri(row, folders)                        # what a replica loads, by row.sha256
"""

from heliostat.registry.archives import ModelLimits
from heliostat.registry.errors import RegistryError
from heliostat.registry.locations import artifact_uri
from heliostat.registry.references import Reference, parse_reference, which_version
from heliostat.registry.service import About, Registry, UseCheck
from heliostat.registry.versions import Actor, NewVersion, resolve
from heliostat.store.model_tables import Model, ModelAlias, ModelVersion

__all__ = [
    "About",
    "Actor",
    "Model",
    "ModelAlias",
    "ModelLimits",
    "ModelVersion",
    "NewVersion",
    "Reference",
    "Registry",
    "RegistryError",
    "UseCheck",
    "artifact_uri",
    "parse_reference",
    "resolve",
    "which_version",
]
