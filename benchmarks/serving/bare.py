"""The baselines: the same model on bare Ray Serve (in the ingress, and behind a handle) and on plain FastAPI + uvicorn.

No postponed annotations here: FastAPI cannot resolve them in a class that Serve pickles.

They do what a careful user writes by hand: read JSON, call the model, write JSON. No key, no validation, no metering.
"""

import argparse
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from ray import serve
from ray.serve import Application

from benchmarks.serving import model

direct_app = FastAPI()
ingress_app = FastAPI()


@serve.deployment(name="Direct")
@serve.ingress(direct_app)
class Direct:
    def __init__(self, weights: str) -> None:
        self._model = model.load(weights)

    @direct_app.post("/predict")
    async def predict(self, request: Request) -> dict[str, Any]:
        body = await request.json()
        return {"outputs": {"y": model.predict(self._model, body["inputs"]["x"])}}


@serve.deployment(name="Model")
class Model:
    def __init__(self, weights: str) -> None:
        self._model = model.load(weights)

    async def predict(self, rows: list[list[float]]) -> list[Any]:
        return model.predict(self._model, rows)


@serve.deployment(name="Ingress")
@serve.ingress(ingress_app)
class Ingress:
    def __init__(self, version: Any) -> None:
        self._version = version

    @ingress_app.post("/predict")
    async def predict(self, request: Request) -> dict[str, Any]:
        body = await request.json()
        return {"outputs": {"y": await self._version.predict.remote(body["inputs"]["x"])}}


def direct(args: dict[str, str]) -> Application:
    deployment: Any = Direct  # the decorator made a deployment of it
    return deployment.bind(args["weights"])


def handle(args: dict[str, str]) -> Application:
    ingress: Any = Ingress
    behind: Any = Model
    return ingress.bind(behind.bind(args["weights"]))


def plain(weights: str) -> FastAPI:
    app = FastAPI()
    loaded = model.load(weights)

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        body = await request.json()
        return {"outputs": {"y": model.predict(loaded, body["inputs"]["x"])}}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--weights", required=True)
    options = parser.parse_args()
    uvicorn.run(plain(options.weights), host="127.0.0.1", port=options.port, log_level="warning", access_log=False)
