"""The HTTP API: the original contract, and the versioned one beside it."""

import base64
from collections.abc import Mapping
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

import etaflow
from etaflow.serve import schemas
from etaflow.serve.bodies import Form, LimitBodies, from_base64, read_fields, read_form, read_json
from etaflow.serve.keys import Keys
from etaflow.serve.messages import Audio, Refused
from etaflow.serve.outgoing import MEDIA_TYPES, archive, encode, encode_sources
from etaflow.serve.service import Service

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": schemas.Error, "description": "The body is no JSON and no form"},
    401: {"model": schemas.Error, "description": "A key is needed"},
    404: {"model": schemas.Error, "description": "The bundle has no model for this"},
    408: {"model": schemas.Error, "description": "It took too long"},
    413: {"model": schemas.Error, "description": "The body is too large"},
    422: {"model": schemas.Error, "description": "A recording or an argument cannot be used"},
    429: {"model": schemas.Error, "description": "Too many requests at a time"},
    500: {"model": schemas.Error, "description": "A worker failed"},
    503: {"model": schemas.Error, "description": "There is no worker"},
}


def _body(model: type[BaseModel], files: Mapping[str, Any], required: list[str]) -> dict[str, Any]:
    """What the documentation says of a body: JSON, or a form with files."""
    schema = {"type": "object", "required": required, "properties": dict(files)}
    content: dict[str, Any] = {"application/json": {"schema": model.model_json_schema()}}
    if files:
        content["multipart/form-data"] = {"schema": schema}
    return {"requestBody": {"required": True, "content": content}}


FILE = {"type": "string", "format": "binary", "description": "WAV, FLAC, Ogg or MP3"}
CONVERT_FORM = {
    "source": FILE,
    "references": {"type": "array", "items": FILE},
    "method": {"type": "string"},
    "topk": {"type": "integer", "default": 4},
    "format": {"type": "string", "enum": list(MEDIA_TYPES), "default": "wav"},
}


def is_form(request: Request) -> bool:
    """Whether a request's body is a form rather than JSON."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


def add_routes(app: FastAPI, service: Service, keys: Keys) -> None:
    """Put the API into an application: routes, limits, errors in words, and its documentation."""
    settings, bundle = service.settings, service.bundle
    app.title, app.version = "etaflow", etaflow.__version__
    app.description = f"Voice conversion and its kin, by the bundle of the run `{bundle.run}`."
    app.add_middleware(
        LimitBodies, max_bytes=settings.max_payload_bytes, seconds=settings.body_seconds
    )
    guarded: dict[str, Any] = {"dependencies": [Depends(keys.demand)], "responses": ERRORS}

    @app.exception_handler(Refused)
    async def say_why(request: Request, error: Refused) -> JSONResponse:
        headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"detail": error.detail}, error.status, headers)

    @app.exception_handler(Exception)
    async def say_that_it_failed(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "the server failed; its log says why"}, 500)

    @app.exception_handler(ClientDisconnect)
    async def nobody_reads_this(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)

    def facts_of(method: str) -> dict[str, str]:
        return {"X-Etaflow-Method": method, "X-Etaflow-Weights": bundle.weights["convert"]}

    async def form_of(request: Request, files: set[str], fields: set[str], most: int) -> Form:
        return await read_form(await request.body(), request.headers, files, fields, most)

    async def recordings_of(
        request: Request, model: type[BaseModel], names: list[str]
    ) -> list[bytes]:
        """The recordings of a body that has nothing else."""
        if is_form(request):
            form = await form_of(request, set(names), set(), len(names))
            return [form.file(name) for name in names]
        values = read_json(await request.body(), model)
        return [from_base64(name, getattr(values, name)) for name in names]

    @app.post(
        "/predict",
        response_model=schemas.PredictResponse,
        openapi_extra=_body(schemas.PredictRequest, {}, []),
        **guarded,
    )
    async def predict(request: Request, response: Response) -> dict[str, str]:
        """Convert by the original contract, by the server's default method."""
        with service.place("convert"):
            values = read_json(await request.body(), schemas.PredictRequest)
            source, reference = (
                from_base64(name, getattr(values, name)) for name in ("audio1", "audio2")
            )
            audio = await service.convert(source, [reference])
            response.headers.update(facts_of(bundle.method))
            return {"output_wav_b64": _base64(encode(audio.waveforms[0], audio.rate))}

    @app.post(
        "/v1/convert",
        response_model=schemas.ConvertResponse,
        openapi_extra=_body(schemas.ConvertRequest, CONVERT_FORM, ["source"]),
        **guarded,
    )
    async def convert(request: Request) -> Any:
        """Say the source in the voice of the references. A form is answered by the file itself."""
        with service.place("convert"):
            most = settings.max_references
            asked: schemas.ConvertOptions
            if is_form(request):
                names = {"method", "topk", "format"}
                form = await form_of(request, {"source", "references"}, names, most + 1)
                source, references = form.file("source"), form.files.get("references", [])
                asked = read_fields(form.fields, schemas.ConvertOptions)
            else:
                values = read_json(await request.body(), schemas.ConvertRequest)
                asked = values
                source = from_base64("source", values.source)
                references = [
                    from_base64(f"references.{n}", each) for n, each in enumerate(values.references)
                ]
            audio = await service.convert(source, references, asked.method, asked.topk)
            file = encode(audio.waveforms[0], audio.rate, asked.format)
            method, weights = asked.method or bundle.method, bundle.weights["convert"]
            if is_form(request):
                name = f'attachment; filename="converted.{asked.format}"'
                headers = facts_of(method) | {"Content-Disposition": name}
                return Response(file, media_type=MEDIA_TYPES[asked.format], headers=headers)
            return {
                "audio": _base64(file),
                "format": asked.format,
                **_sizes(audio),
                "method": method,
                "topk": asked.topk,
                "weights": weights,
            }

    @app.post(
        "/v1/analyze",
        openapi_extra=_body(schemas.AnalyzeRequest, {"recording": FILE}, ["recording"]),
        **guarded,
    )
    async def analyze(request: Request) -> dict[str, Any]:
        """Split a recording into speaker and rest: the measures of `etaflow analyze`."""
        with service.place("analyze"):
            (recording,) = await recordings_of(request, schemas.AnalyzeRequest, ["recording"])
            return await service.analyze(recording)

    @app.post(
        "/v1/verify",
        response_model=schemas.VerifyResponse,
        openapi_extra=_body(schemas.VerifyRequest, {"one": FILE, "other": FILE}, ["one", "other"]),
        **guarded,
    )
    async def verify(request: Request) -> dict[str, Any]:
        """Say whether two recordings are of one speaker."""
        with service.place("verify"):
            one, other = await recordings_of(request, schemas.VerifyRequest, ["one", "other"])
            return await service.verify(one, other) | {"weights": bundle.weights["verify"]}

    @app.post(
        "/v1/separate",
        response_model=schemas.SeparateResponse,
        openapi_extra=_body(schemas.SeparateRequest, {"mixture": FILE}, ["mixture"]),
        **guarded,
    )
    async def separate(request: Request) -> Any:
        """Give each speaker of a mixture a file. A form is answered by a ZIP archive of them."""
        with service.place("separate"):
            (mixture,) = await recordings_of(request, schemas.SeparateRequest, ["mixture"])
            audio = await service.separate(mixture)
            files = encode_sources(audio)
            weights = bundle.weights["separate"]
            if is_form(request):
                headers = {
                    "X-Etaflow-Weights": weights,
                    "Content-Disposition": 'attachment; filename="sources.zip"',
                }
                return Response(archive(files), media_type="application/zip", headers=headers)
            return {"sources": list(map(_base64, files)), **_sizes(audio), "weights": weights}

    @app.api_route("/v1/health", methods=["GET", "HEAD"])
    def health() -> JSONResponse:
        """Whether the server is ready, what it can do, and what it allows."""
        ready = service.ready()
        limits = settings.model_dump(include={"max_payload_mb", "max_seconds", "max_references"})
        facts = {
            "status": "ok" if ready else "starting",
            "version": etaflow.__version__,
            "run": bundle.run,
            "tasks": dict(bundle.weights),
            "methods": list(bundle.methods),
            "method": bundle.method,
            "limits": limits,
        }
        return JSONResponse(facts, 200 if ready else 503, {} if ready else {"Retry-After": "2"})

    @app.get("/metrics", dependencies=[Depends(keys.demand)])
    def metrics() -> Response:
        """Counts and times in Prometheus's text format."""
        return Response(service.measures.text(), media_type=CONTENT_TYPE_LATEST)


def _base64(file: bytes) -> str:
    return base64.b64encode(file).decode("ascii")


def _sizes(audio: Audio) -> dict[str, Any]:
    return {"sample_rate": audio.rate, "seconds": len(audio.waveforms[0]) / audio.rate}
