"""The experiments of ``evidence.py``: what is trained for each cell of its tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from light import CROP, SIDE, WHOLE

BATCH = 64  # images of a step that are trained on, whatever the head
REAL, SHALLOW = 25_920, 12_800  # images of a training on photographs (3 epochs), and on two of each identity
IDS, IMAGES, VISITS = 2_000, 5, 10  # synthetic identities, images of each, and how often one is trained on
_COUNTS, _VISITS = (2, 5, 10), (2.5, 5, 10, 20)  # the same in the tables that vary one of them


@dataclass(frozen=True)
class Training:
    """One training but for its seed.

    Attributes:
        data: see ``light.Faces.training``.
        recipe: of the package, which the light protocol changes.
        settings: on top, as after ``--set``.
        images: trained on in all.
    """

    data: str
    recipe: str
    settings: tuple[str, ...]
    images: int

    @property
    def name(self) -> str:
        """All of it in words."""
        return f"{self.images} images of {self.data}: {' '.join([self.recipe, *self.settings])}"

    def options(self, seed: int) -> list[str]:
        """Settings of the whole protocol, as after ``--set``."""
        pairs = self.recipe.endswith("f2c") or "head.name=f2c" in self.settings
        items = BATCH // 2 if pairs else BATCH
        photographs = [f"backbone.input_size={WHOLE}", f"backbone.crop={CROP}", *_MILD]
        return [
            *_LIGHT,
            *([f"backbone.input_size={SIDE}"] if self.data.startswith("drawn") else photographs),
            f"train.duration={self.images // BATCH} steps",
            f"train.batch_size={items}",
            f"optim.reference_batch={items}",
            f"train.seed={seed}",
            *self.settings,
        ]


_LIGHT = (
    "data.train=held:train",
    "data.workers=0",
    "backbone.name=light",
    "backbone.embedding_size=128",
    "train.ema=0.99",
    "train.precision=fp32",
    "train.log_every=1000",
    "checkpoint.every=100%",
    "checkpoint.keep=1",
    "eval.every=100%",
    "eval.flip=false",
    'eval.sets={test = "held:test"}',
)
_OFF = ("scale", "rotate", "erase", "brightness", "contrast", "saturation")
_MILD = ("data.resize=false", "augment.shift=2", *(f"augment.{part}=0" for part in _OFF))


@dataclass(frozen=True)
class Table:
    """Experiments that are read together.

    Attributes:
        rows: header of the rows.
        reference: row that the others are compared with, column by column.
        cells: (row, column) -> what is trained.
    """

    rows: str
    reference: str
    cells: Mapping[tuple[str, str], Training] = field(repr=False)


_PFC = "head.name=partial_fc"
_HEADS = {  # on photographs: the small recipes
    "full": ("small_faces", ()),
    "Partial FC 0.3": ("small_faces", (_PFC, "head.rate=0.3")),
    "AttFC": ("small_faces_attfc", ()),
    "F2C": ("small_faces_f2c", ()),
}
_NOISE = {
    "clean": "real",
    "20 % flips": "real:flips=0.2",
    "40 % flips": "real:flips=0.4",
    "conflicts": "real:conflict=0.5",
}
_MARGINS = {
    "ArcFace": ("head.margin.name=arcface", "head.margin.m=0.12"),
    "CosFace": (),
    "RobustFace": ("head.margin.name=robustface", "head.margin.m=0.12"),
}
_FEW = ("head.unique=true", "head.fresh=true", "head.temperature=0.1")  # as large_c.py
_TWIN = ("twin.momentum=0.99", "twin.schedule=warmup")
_ATTFC, _F2C = ("head.name=attfc", *_FEW, *_TWIN), ("head.name=f2c", "head.rows_per_id=1", *_TWIN)
_DRAWN_HEADS = {
    "full": ("head.name=full",),
    "Partial FC 0.1": (_PFC, "head.rate=0.1"),
    "AttFC, 30 % slots": (*_ATTFC, "head.share=0.3"),
    "F2C, 30 % slots": (*_F2C, "head.share=0.3"),
}


def _photographs(data: str, head: str, *settings: str, images: int = REAL) -> Training:
    recipe, of_head = _HEADS[head]
    return Training(data, recipe, (*of_head, *settings), images)


def _drawn(settings: tuple[str, ...], images: int = IMAGES, visits: float = VISITS) -> Training:
    return Training(f"drawn:ids={IDS},images={images}", "synthetic_large", settings, int(IDS * visits))


def _noise() -> dict[tuple[str, str], Training]:
    return {(head, noise): _photographs(data, head) for head in _HEADS for noise, data in _NOISE.items()}


def _margins() -> dict[tuple[str, str], Training]:
    cells = {}
    for noise in ("clean", "20 % flips", "conflicts"):
        for name, margin in _MARGINS.items():
            settings = margin
            if name == "RobustFace" and "flips" in noise:
                settings = (*margin, "head.margin.noise=0.2")
            cells[name, noise] = _photographs(_NOISE[noise], "full", *settings)
            if noise != "clean":
                filtered = (*settings, "head.margin.interclass_filter=0.4")
                cells[f"{name}, filter 0.4", noise] = _photographs(_NOISE[noise], "full", *filtered)
    return dict(sorted(cells.items(), key=lambda cell: list(_MARGINS).index(cell[0][0].split(",")[0])))


def _rates() -> dict[tuple[str, str], Training]:
    rates = {"0.1": "0.1", "0.1, 0.3, 1 in turn": "[0.1,0.3,1.0]", "0.3": "0.3"}
    cells = {("1 (full)", "photographs"): _photographs("real", "full")}
    for name, rate in rates.items():
        cells[name, "photographs"] = Training("real", "small_faces", (_PFC, f"head.rate={rate}"), REAL)
    cells["1 (full)", "synthetic"] = _drawn(_DRAWN_HEADS["full"])
    for name, rate in rates.items():
        cells[name, "synthetic"] = _drawn((_PFC, f"head.rate={rate}"))
    return cells


def _options(
    recipe: str,
    synthetic: tuple[str, ...],
    from_release: Mapping[str, tuple[str, ...]],
    changes: Mapping[str, tuple[str, ...]],
) -> dict[tuple[str, str], Training]:
    """A recipe, what leads from the release to it step by step, and single changes of it."""
    head = f"head.name={recipe.removeprefix('small_faces_')}"
    cells = {
        ("recipe", "photographs"): Training("real", recipe, (), REAL),
        ("recipe", "synthetic"): _drawn((*synthetic, "head.share=0.3")),
        ("released settings", "photographs"): Training("real", "small_faces", (head, _CONSTANT), REAL),
    }
    for name, settings in from_release.items():
        row = f"released settings, slots of the recipe{name}"
        cells[row, "photographs"] = Training("real", "small_faces", (head, "head.share=1.0", *settings), REAL)
        cells[row, "synthetic"] = _drawn((head, "head.share=0.3", *settings))
    for name, settings in changes.items():
        cells[name, "photographs"] = Training("real", recipe, settings, REAL)
    return cells


_WARM, _CONSTANT = "twin.schedule=warmup", "twin.schedule=constant"
_ATTFC_FROM_RELEASE = {
    "": (_CONSTANT,),
    ", twin with warm-up": (_WARM,),
    ", twin with warm-up, unique and fresh": (_WARM, "head.unique=true", "head.fresh=true"),
}
_F2C_FROM_RELEASE = {
    "": (_CONSTANT,),
    ", twin with warm-up": (_WARM,),
    ", twin with warm-up, one row": (_WARM, "head.rows_per_id=1"),
}
_SLOW_TWINS = {
    "twin 0.999, warm-up": ("twin.momentum=0.999",),
    "twin 0.999, constant": ("twin.momentum=0.999", _CONSTANT),
}
_ATTFC_CHANGES = {
    **_SLOW_TWINS,
    "no average (refresh 1)": ("head.refresh=1.0",),
    "ring, no average": ("head.unique=false", "head.refresh=1.0"),
    "temperature 1": ("head.temperature=1.0",),
    "without the batch's centres": ("head.fresh=false",),
    "1 key": ("head.keys=1",),
    "slots for 30 % of the identities": ("head.share=0.3",),
}
_F2C_CHANGES = {
    **_SLOW_TWINS,
    "two rows": ("head.rows_per_id=2",),
    "no average (refresh 1)": ("head.refresh=1.0",),
    "refresh 0.3": ("head.refresh=0.3",),
    "one view stays": ("head.both=false",),
    "slots for 30 % of the identities": ("head.share=0.3",),
}


def _slots() -> dict[tuple[str, str], Training]:
    shares = {"3 %": 0.03, "10 %": 0.1, "30 %": 0.3, "100 %": 1.0}
    cells = {}
    for column, share in shares.items():
        cells["AttFC, slots", column] = _drawn((*_ATTFC, f"head.share={share}"))
        cells["F2C, slots", column] = _drawn((*_F2C, f"head.share={share}"))
    return cells


def _keys() -> dict[tuple[str, str], Training]:
    attfc = (*_ATTFC, "head.share=0.3")
    keys = {"1": (*attfc, "head.keys=1"), "2": attfc, "4": (*attfc, "head.keys=4")}
    return {("AttFC, keys", column): _drawn(settings) for column, settings in keys.items()}


def _by_head(columns: Mapping[str, tuple[int, float]]) -> dict[tuple[str, str], Training]:
    """For each column images of an identity and visits to it."""
    return {
        (head, column): _drawn(settings, *size)
        for head, settings in _DRAWN_HEADS.items()
        for column, size in columns.items()
    }


def _epochs() -> dict[tuple[str, str], Training]:
    """On photographs, longer trainings."""
    sizes = {
        "3 epochs, 48 visits": ("real", REAL),
        "6 epochs, 97 visits": ("real", 2 * REAL),
        "3 epochs, 40 % flips": ("real:flips=0.4", REAL),
        "6 epochs, 40 % flips": ("real:flips=0.4", 2 * REAL),
    }
    return {
        (head, column): _photographs(data, head, images=images)
        for head in ("full", "AttFC")
        for column, (data, images) in sizes.items()
    }


TABLES = {
    "noise": Table("head", "full", _noise()),
    "margins": Table("margin", "CosFace", _margins()),
    "images": Table("head", "full", _by_head({f"{n} images": (n, VISITS) for n in _COUNTS})),
    "visits": Table("head", "full", _by_head({f"{n:g} visits": (IMAGES, n) for n in _VISITS})),
    "epochs": Table("head", "full", _epochs()),
    "shallow": Table(
        "head", "full", {(h, "2 images"): _photographs("real:few=2", h, images=SHALLOW) for h in _HEADS}
    ),
    "rates": Table("rate", "1 (full)", _rates()),
    "attfc": Table(
        "AttFC", "recipe", _options("small_faces_attfc", _ATTFC, _ATTFC_FROM_RELEASE, _ATTFC_CHANGES)
    ),
    "f2c": Table("F2C", "recipe", _options("small_faces_f2c", _F2C, _F2C_FROM_RELEASE, _F2C_CHANGES)),
    "slots": Table("", "", _slots()),
    "keys": Table("", "", _keys()),
}
