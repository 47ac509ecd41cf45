"""What Serve is given, as plain data: the contract between the control plane (which renders it) and the replicas (which obey it).

Standard library only; the control plane imports this package and nothing else of `heliostat_serving`. Every class has `to_json`
and `from_json`; `from_json(to_json(x)) == x`, and unknown keys are an error, so a document of another release is refused whole.

Two kinds of change, and Serve treats them differently: *arguments* of an application (`VersionSpec`, `GatewaySpec`) are fixed,
a change restarts replicas; `user_config` (`GatewayConfig`, `DirectConfig`) and `Scale` change in place, in under a second.
"""

from heliostat_serving.spec.document import (
    DEPLOYMENT,
    DIRECT_DEPLOYMENT,
    GATEWAY_DEPLOYMENT,
    direct_application,
    gateway_application,
    version_application,
)
from heliostat_serving.spec.door import DirectConfig, GatewayConfig, Key, Limits, Target
from heliostat_serving.spec.names import (
    GATEWAY_PREFIX,
    VERSION_PREFIX,
    gateway_app,
    is_ours,
    route,
    version_app,
    version_label,
    wish_file,
)
from heliostat_serving.spec.reading import SpecError
from heliostat_serving.spec.signature import DTYPES, Signature, TensorSpec
from heliostat_serving.spec.version import Batching, GatewaySpec, Scale, VersionSpec

__all__ = [
    "DEPLOYMENT",
    "DIRECT_DEPLOYMENT",
    "DTYPES",
    "GATEWAY_DEPLOYMENT",
    "GATEWAY_PREFIX",
    "VERSION_PREFIX",
    "Batching",
    "DirectConfig",
    "GatewayConfig",
    "GatewaySpec",
    "Key",
    "Limits",
    "Scale",
    "Signature",
    "SpecError",
    "Target",
    "TensorSpec",
    "VersionSpec",
    "direct_application",
    "gateway_app",
    "gateway_application",
    "is_ours",
    "route",
    "version_app",
    "version_application",
    "version_label",
    "wish_file",
]
