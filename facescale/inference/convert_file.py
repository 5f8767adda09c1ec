"""Convert a checkpoint of another project to a facescale weights file."""

from dataclasses import dataclass
from pathlib import Path

from facescale.backbones import build
from facescale.convert.colour_order import swap_test
from facescale.convert.foreign import Converted, convert
from facescale.data import open_reader
from facescale.inference.weights import save_model


@dataclass(frozen=True)
class ConvertReport:
    """What `convert_file` wrote.

    Attributes:
        path: the file.
        origin: the project that the checkpoint comes from.
        backbone: name of the backbone.
        embedding_size: dimension of its embeddings.
        colour: colour order of its input, RGB or BGR.
        colour_check: verdict of the colour test; None without images.
        assumed: what was concluded from shapes rather than names; empty where nothing was.
    """

    path: str
    origin: str
    backbone: str
    embedding_size: int
    colour: str
    colour_check: str | None
    assumed: str


def convert_file(
    checkpoint: Path, out: Path, origin: str | None = None, images: str | None = None
) -> ConvertReport:
    """Read ``checkpoint`` without executing anything in it, and write ``out``.

    Args:
        checkpoint: ``.pth``, ``.pt``, ``.ckpt`` or ``.safetensors`` of another project.
        out: the ``.safetensors`` file.
        origin: the project; needed only where the keys of the checkpoint fit several.
        images: aligned faces, as for `facescale.data.open_reader`, to check the colour order with.

    Raises:
        ValueError: an unknown suffix, a checkpoint that cannot be read or is not supported, or images that
            cannot be used for the check.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"cannot write '{out}'; its suffix must be .safetensors")
    found = convert(checkpoint, origin)
    verdict = None if images is None else _check_colour(found, images)
    info = {"origin": found.origin, "converted_from": checkpoint.name}
    if found.assumed:
        info["assumed"] = found.assumed
    save_model(out, found.state_dict, found.backbone, found.contract, info=info)
    name, size = found.backbone["name"], found.backbone["embedding_size"]
    return ConvertReport(str(out), found.origin, name, size, found.contract.colour, verdict, found.assumed)


def _check_colour(found: Converted, images: str) -> str:
    net = build(found.backbone["name"], found.backbone["embedding_size"], **found.backbone["options"])
    net.load_state_dict(found.state_dict)
    return swap_test(net, found.contract, open_reader(images)).verdict
