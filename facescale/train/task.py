"""Backbone, head and the networks that follow them: turns a batch into a loss, images into embeddings."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from facescale.backbones.low_rank import adapter_state, load_own, load_plain, own_state
from facescale.data.loading.augment import Augment
from facescale.data.loading.batch import Batch
from facescale.distributed import Dist
from facescale.distributed.sharding import gathered, is_sharded, load_weights, local, whole
from facescale.evaluate.figures import Result
from facescale.evaluate.thresholds import thresholds_of
from facescale.heads import ClassHead
from facescale.inference.adapted import adapted_fingerprint
from facescale.inference.model import weights_fingerprint
from facescale.inference.torch_encoder import TorchEncoder
from facescale.inference.weights import read_card, save_model
from facescale.model_card import Card
from facescale.ops import autocast, to_device, unit
from facescale.train.teacher import Teacher
from facescale.train.tensors import copied
from facescale.train.twin import Twin

# V views, B batch of this process, H W height and width, D embedding size


@dataclass(frozen=True)
class StepOutput:
    """Result of a forward pass.

    Attributes:
        loss: scalar, mean over the global batch.
        stats: detached scalars for the log.
    """

    loss: Tensor
    stats: dict[str, Tensor]

    def detach(self) -> "StepOutput":
        """The same values, without what backward needs."""
        return StepOutput(self.loss.detach(), self.stats)

    @staticmethod
    def mean(parts: Sequence["StepOutput"]) -> "StepOutput":
        """Of the (detached) parts of one batch, for gradient accumulation."""
        share = len(parts)

        def mean(values: Iterable[Tensor]) -> Tensor:
            total = torch.zeros((), device=parts[0].loss.device)
            for value in values:
                total += value / share
            return total

        loss = mean(part.loss for part in parts)
        return StepOutput(loss, {key: mean(part.stats[key] for part in parts) for key in parts[0].stats})


class RecognitionTask(nn.Module):
    """The networks of a training: forward pass of a batch, moving averages, state, evaluated network.

    Args:
        backbone: images -> embeddings, on the device.
        head: embeddings and identities -> loss, on the device.
        card: goes with the saved weights; its thresholds are those of the last evaluation.
        net: the backbone as the loss is computed through it (compiled, data-parallel).
        twin: makes the key views, for heads that need them.
        average: follows the backbone; is evaluated and exported in its place.
        augment: of all images.
        augment_repeats: of images that an earlier view of their item shows already.
        precision: of the networks' forward passes, a name of ``ops.PRECISIONS``.
        dist: this process among its peers.
        teacher: the old network of a run that starts from it.
        frozen: parts of the backbone that stay in evaluation mode.
        moves_centres: False keeps every class centre where it is.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: ClassHead,
        card: Card,
        *,
        net: nn.Module,
        twin: Twin | None,
        average: Twin | None,
        augment: Augment,
        augment_repeats: Augment,
        precision: str,
        dist: Dist,
        teacher: Teacher | None = None,
        frozen: Sequence[nn.Module] = (),
        moves_centres: bool = True,
    ) -> None:
        super().__init__()
        self._teacher, self._frozen, self._moves_centres = teacher, list(frozen), moves_centres
        self.backbone, self.head, self.twin, self.average = backbone, head, twin, average
        self.card = card
        self._net = [net]  # in a list: what wraps the backbone has no state of its own
        self._augment, self._augment_repeats = augment, augment_repeats
        self._precision, self._dist = precision, dist
        # What forward passes change, as it was before the step: one that is not finite spoils it. The centres
        # that a head may keep in buffers are its own to restore.
        changing = [backbone, head.margin, *([twin.net] if twin else [])]
        self._statistics = [x for module in changing for x in module.buffers()]
        self._statistics_before = [x.clone() for x in self._statistics]
        self._encoder = TorchEncoder(self.evaluated, card.contract, dist.device, precision)
        self._trained = TorchEncoder(backbone, card.contract, dist.device, precision)

    @property
    def input_size(self) -> int:
        """Height and width of the images, pixels."""
        return self.card.contract.size

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and exported: the moving average if there is one."""
        return self.backbone if self.average is None else self.average.net

    def start_with(self, state_dict: Mapping[str, Tensor]) -> None:
        """Give the network, and all that follow it, these weights."""
        for net in (self.backbone, *(one.net for one in (self.average, self.twin) if one is not None)):
            load_plain(net, state_dict)
        if adapter_state(self.backbone):
            self.card = replace(self.card, adapters=weights_fingerprint(state_dict, self.card.contract))

    def train(self, mode: bool = True) -> "RecognitionTask":
        """Set the mode of all parts but the frozen ones, whose statistics must not drift."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    # ---- a step -------------------------------------------------------------------------------------------

    def begin_step(self, progress: float, strength: float, loss_scale: float) -> None:
        """Prepare for the forward passes of one optimizer step.

        Args:
            progress: share of the training done, 0 to 1; the head and the twin's momentum may follow it.
            strength: share of the margin in force, 0 to 1.
            loss_scale: factor on the loss before backward (fp16), beside 1 / accumulation.
        """
        self.head.begin_step(progress, strength, loss_scale)
        if self.twin is not None:
            self.twin.update(self.backbone, progress)
        _copy(self._statistics_before, self._statistics)

    def forward(self, batch: Batch) -> StepOutput:
        """Loss of a batch of training images.

        Args:
            batch: the views that the head needs: queries first, then keys; views of identity pairs are both.
        """
        device, needs = self._dist.device, self.head.needs
        x_VBCHW = self._augmented(batch)
        with autocast(device, self._precision, cached=not is_sharded(self.backbone)):
            q_VBD = _embed_views(self._net[0], x_VBCHW[: needs.query_views])
            k_VBD = None
            if self.twin is not None:
                keys = x_VBCHW if needs.identity_pairs else x_VBCHW[needs.query_views :]
                k_VBD = _embed_views(self.twin, keys)
        spread = unit(q_VBD[0].detach()).mean(dim=0).square().sum()
        stats = {"spread": spread}
        distance = torch.zeros((), device=device)
        if self._teacher is not None:
            old_VBD = self._teacher.embed(x_VBCHW[: needs.query_views])
            distance = self._teacher.loss(q_VBD, old_VBD)
            stats["distil"] = distance.detach()
            # a number of its own for each view: the first ones decide on mirroring
            random_VB = batch.random[: needs.query_views].double().sum(-1) * 1009 % 1
            q_VBD = self._teacher.mixed(q_VBD, old_VBD, *to_device(device, random_VB))
        out = self.head(q_VBD, batch.ids, k_VBD)  # ids stay in host memory, where the head's bookkeeping is
        return StepOutput(out.loss + distance, {**out.stats, **stats})

    def gradients_exchanged(self, exchanged: bool) -> AbstractContextManager[None]:
        """Inside: whether processes average gradients; they must after the last part of a batch only."""
        net = self._net[0]
        if exchanged or not isinstance(net, DistributedDataParallel):
            return nullcontext()
        return net.no_sync()

    def augmented_images(self, batch: Batch) -> Tensor:
        """The first view of a batch after augmentation, uint8 RGB (B, S, S, 3); nothing random is used up."""
        x_BCHW = self._augmented(batch)[0].float()
        return (x_BCHW * 127.5 + 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)

    def _augmented(self, batch: Batch) -> Tensor:
        """Normalised images (V, B, 3, H, W) on the device."""
        device = self._dist.device
        images_VBHW3 = batch.images.to(device, non_blocking=True)
        num_views, num_images = images_VBHW3.shape[:2]
        (random,) = to_device(device, batch.random)
        x = self._augment(images_VBHW3.flatten(0, 1), random.flatten(0, 1))
        if num_views > 1 and batch.repeats.any():  # a view that shows an image again must differ from it
            (again,) = to_device(device, batch.repeats.flatten().nonzero()[:, 0])
            x[again] = self._augment_repeats(images_VBHW3.flatten(0, 1)[again], random.flatten(0, 1)[again])
        return x.view(num_views, num_images, *x.shape[1:])

    def is_finite(self) -> Tensor:
        """Whether what the head moves its rows by is finite: a bool on the device."""
        finite = self.head.is_finite()
        return torch.ones((), dtype=torch.bool, device=self._dist.device) if finite is None else finite

    def skip_step(self) -> None:
        """Undo the forward passes of a step that was not finite."""
        self.head.skip_step()
        _copy(self._statistics, self._statistics_before)

    def after_step(self, lr: float) -> None:
        """Update what the optimizer does not: the head's rows at rate ``lr``, and the moving average.

        All processes have agreed that the step is finite.
        """
        self.head.finish_step(lr if self._moves_centres else 0.0)
        if self.average is not None:
            self.average.update(self.backbone)

    @torch.no_grad()
    def is_sound(self) -> bool:
        """Whether all weights and centres here are finite, and the embeddings of two images by each network.

        Weights of 1e30 are finite, too, and of no use. Centres on disk are not read.
        """
        nets = [self.backbone, self.evaluated, self.head, *([self.twin] if self.twin else [])]
        values = [x for net in nets for x in (*net.parameters(), *net.buffers()) if x.is_floating_point()]
        size = self.input_size
        probe_BHW3 = (torch.arange(2 * size * size * 3) % 251).to(torch.uint8).view(2, size, size, 3)
        values += [self._encoder(probe_BHW3), self._trained(probe_BHW3)]
        return (
            bool(torch.stack([local(x).isfinite().all() for x in values]).all())
            and self.head.has_finite_rows()
        )

    # ---- evaluation ---------------------------------------------------------------------------------------

    def embed(self, images_BHW3: Tensor) -> Tensor:
        """Raw float32 embeddings (B, D) of uint8 images by the evaluated network, in evaluation mode."""
        return self._encoder(images_BHW3)

    @contextmanager
    def ready_for_evaluation(self) -> Iterator[None]:
        """Inside: the evaluated network is whole and has the main process's batch statistics, as saved."""
        own = list(self.evaluated.buffers())
        kept = [x.clone() for x in own]
        for x in own:
            self._dist.broadcast(x)
        try:
            with gathered(self.evaluated):
                yield
        finally:
            for x, before in zip(own, kept, strict=True):
                x.copy_(before)

    def fingerprint(self) -> str:
        """Of the evaluated network, as a checkpoint of it will have; on the main process. All call this."""
        of_own = weights_fingerprint(whole(own_state(self.evaluated), self._dist), self.card.contract)
        return adapted_fingerprint(self.card.adapters, of_own) if self.card.adapters else of_own

    def keep_thresholds(self, results: Sequence[Result]) -> None:
        """Keep the thresholds of an evaluation (of its first pair protocol), to be saved with the weights."""
        thresholds = thresholds_of(results)
        if thresholds is not None:
            self.card = replace(self.card, thresholds=thresholds)

    # ---- state --------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs beside ``model_to_save`` and the head's rows. All processes call this."""
        tensors = {
            "head": self.head.state_dict(),
            "trained_backbone": None if self.average is None else own_state(self.backbone),
            "averaged": 0 if self.average is None else self.average.num_updates,
            "twin": None if self.twin is None else self.twin.state_dict(),
        }
        return whole(tensors, self._dist)  # type: ignore[no-any-return]

    def model_to_save(self) -> Callable[[bool], Callable[[Path], None]]:
        """Given True for a copy: what saves the evaluated network with its card. All processes call this."""
        card, weights = self.card, whole(own_state(self.evaluated), self._dist)
        spec = (card.backbone or {}, card.contract, card.thresholds, card.info, card.adapters)

        def fixed(copy: bool) -> Callable[[Path], None]:
            kept = copied(weights) if copy else weights
            return lambda path: save_model(path, kept, *spec)

        return fixed

    def load_state(self, state: dict[str, Any], folder: Path) -> None:
        """Restore what ``state``, ``model_to_save`` and the head's ``rows_to_save`` wrote to ``folder``."""
        model = folder / "model.safetensors"
        self.card = replace(self.card, thresholds=read_card(model).thresholds)
        load_own(self.evaluated, load_file(model))
        if self.average is not None:
            load_own(self.backbone, state["trained_backbone"])
            self.average.num_updates = state["averaged"]
        if self.twin is not None:
            load_weights(self.twin, state["twin"])
        self.head.load_state_dict(state["head"])
        self.head.load_rows(folder)


def _copy(to: list[Tensor], of: list[Tensor]) -> None:
    if to:  # a network with layer norm only has none
        torch._foreach_copy_(to, of)


def _embed_views(net: nn.Module, x_VBCHW: Tensor) -> Tensor:
    """Embeddings (V, B, D), all views in one pass (batch norm sees them together)."""
    num_views, num_images = x_VBCHW.shape[:2]
    return net(x_VBCHW.flatten(0, 1)).view(num_views, num_images, -1)  # type: ignore[no-any-return]
