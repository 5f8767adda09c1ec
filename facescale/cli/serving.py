"""The command that answers requests: serve."""

from pathlib import Path
from typing import Annotated

import typer

from facescale.cli.app import DeviceOption, IndexOption, app


@app.command()
def serve(
    model: Annotated[Path, typer.Argument(help="Run folder, weights or .onnx.")],
    gallery: Annotated[Path | None, typer.Option(help="Gallery to search, made by enrol.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; anything but loopback lets others use it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Further host name that requests may be addressed to."),
    ] = None,
    max_bytes: Annotated[int, typer.Option(min=1, help="Largest photo, in bytes.")] = 10_000_000,
    max_pixels: Annotated[int, typer.Option(min=1, help="Largest photo, in pixels.")] = 24_000_000,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Longest time of a request, and of its answer.")
    ] = 30.0,
    keep: Annotated[
        Path | None, typer.Option(help="Folder to write the aligned faces to; by default none is kept.")
    ] = None,
    index: IndexOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Serve a local page and a JSON API: compare, search.

    POST /api/compare with {"first": BASE64, "second": BASE64, "far": 0.01}; POST /api/search with {"photo":
    BASE64, "far": 0.01, "top": 5}. Stop it with Ctrl-C.
    """
    from facescale.gallery.codes import require_extra as require_faiss
    from facescale.serve.app import LOOPBACK, build_app, require_extra

    require_extra()
    if index:
        require_faiss()
    import uvicorn

    from facescale.gallery.gallery import Gallery
    from facescale.gallery.photos import face_finder
    from facescale.inference.load import load
    from facescale.serve.service import FaceService, Limits

    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    service = FaceService(
        load(model, device),
        face_finder(),
        Gallery(gallery) if gallery else None,
        Limits(max_bytes, max_pixels, seconds),
        keep,
        index,
    )
    application = build_app(service, (*LOOPBACK, host, *(allow_host or ())))
    print(
        f"listening on http://{host}:{port}; faces are {'kept in ' + str(keep) if keep else 'not kept'}",
        flush=True,
    )
    uvicorn.run(application, host=host, port=port, log_level="warning", timeout_keep_alive=5)
