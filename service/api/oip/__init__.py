"""The Open Inference Protocol over REST, `/v2`: what the clients that people have speak (tritonclient, KServe's, MLServer's)."""

from service.api.oip import configuration, counts, models, repository, server

ROUTERS = (server.router, counts.router, models.router, configuration.router, repository.router)
"""In the order of matching: a model named `stats` would hide behind the statistics of all."""
