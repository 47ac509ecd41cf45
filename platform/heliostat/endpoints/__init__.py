"""Endpoints: stable URLs that serve model versions on Ray Serve. This is their control side; it talks to Serve by REST only.

The store says what should be; `render` turns it into Serve's document, `writer` puts it, `steps` moves each deployment on by what
Serve shows, `service` is the one thread that does all of this. The data plane is `heliostat_serving`.
"""

from heliostat.endpoints.deploying import DeployRequest
from heliostat.endpoints.errors import EndpointError
from heliostat.endpoints.keys import KeyRequest
from heliostat.endpoints.rows import Actor, uses

__all__ = ["Actor", "DeployRequest", "EndpointError", "KeyRequest", "uses"]
