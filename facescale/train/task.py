"""Backbone, head and whatever follows them, as one thing that turns a batch into a loss."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from facescale import backbones, heads, margins
from facescale.config import Config
from facescale.data.loading.augment import Augment, stronger
from facescale.data.loading.batch import Batch
from facescale.distributed import Dist
from facescale.evaluate.verification import VerificationResult
from facescale.heads import ClassHead
from facescale.inference.weights import save_model
from facescale.model_card import Contract, Threshold
from facescale.ops import ema_update_, evaluating, normalise, unit
from facescale.plan import Plan
from facescale.plan.components import head_options
from facescale.train.twin import Twin

# V views, B batch of this process, H W height and width, D embedding size

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class StepOutput:
    """Result of a forward pass.

    Attributes:
        loss: scalar, mean over the global batch.
        stats: detached scalars for the log.
    """

    loss: Tensor
    stats: dict[str, Tensor]


class RecognitionTask(nn.Module):
    """Owns the networks: precision, data-parallel wrapping, moving average, state.

    Args:
        config: what the user wants.
        plan: what follows from it.
        dist: this process among its peers.
        centres: folder for class centres that are placed on disk.
    """

    def __init__(self, config: Config, plan: Plan, dist: Dist, centres: Path) -> None:
        super().__init__()
        torch.manual_seed(config.train.seed)  # the same first weights on every process
        layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
        self._spec = config.backbone
        self._flip = config.eval.flip
        self.backbone: nn.Module = backbones.build(
            config.backbone.name, config.backbone.embedding_size, **config.backbone.options
        ).to(dist.device, memory_format=layout)  # type: ignore[call-overload]
        self.head: ClassHead = heads.build(
            config.head.name,
            plan.num_ids,
            config.backbone.embedding_size,
            margins.build(config.head.margin.name, **config.head.margin.options),
            dist,
            **head_options(config, centres),
        ).to(dist.device)
        self.average = copy.deepcopy(self.backbone).requires_grad_(False) if config.train.ema else None
        self.twin = (
            Twin(
                self.backbone,
                momentum=config.twin.momentum,
                schedule=config.twin.schedule,
                buffers=config.twin.buffers,
                seed=config.train.seed,
                dist=dist,
            )
            if self.head.needs.key_views
            else None
        )
        # Running statistics as they were before the step: a forward pass that is not finite spoils them.
        self._statistics = [x for x in self.backbone.buffers() if x.is_floating_point()]
        self._statistics_before = [x.clone() for x in self._statistics]
        self._ema, self._averaged = config.train.ema, 0
        self._augment = Augment(config.augment)
        self._augment_more = Augment(stronger(config.augment))
        self._dtype = _DTYPES[plan.precision]
        self._dist = dist
        torch.manual_seed(config.train.seed + 1 + dist.rank)  # dropout differs between processes
        net: nn.Module = torch.compile(self.backbone) if config.train.compile else self.backbone  # type: ignore[assignment]
        if dist.world_size > 1:
            net = DistributedDataParallel(net, broadcast_buffers=False, gradient_as_bucket_view=True)
        self._thresholds: dict[float, Threshold] = {}
        self._info = {"data": config.data.train, "num_ids": plan.num_ids, "num_images": plan.num_images}
        self._net = [net]  # in a list: wrappers are not part of the state

    @property
    def input_size(self) -> int:
        """Height and width of the images, pixels."""
        return int(self.backbone.input_size)  # type: ignore[arg-type]

    def start_with(self, state_dict: Mapping[str, Tensor]) -> None:
        """Give the network, and all that follow it, these weights."""
        for net in (self.backbone, self.average, self.twin.net if self.twin else None):
            if net is not None:
                net.load_state_dict(state_dict)

    def begin_step(self, progress: float) -> None:
        """What comes before a step's forward passes: the twin follows, statistics are remembered.

        Args:
            progress: share of the training done, 0..1.
        """
        if self.twin is not None:
            self.twin.update(self.backbone, progress)
        torch._foreach_copy_(self._statistics_before, self._statistics)

    def forward(self, batch: Batch) -> StepOutput:
        """Loss of a batch of training images.

        Args:
            batch: the views that the head needs: queries first, then keys; views of identity pairs are both.
        """
        device, needs = self._dist.device, self.head.needs
        images_VBHW3 = batch.images.to(device, non_blocking=True)
        num_views, num_images = images_VBHW3.shape[:2]
        random = batch.random.to(device, non_blocking=True)
        x = self._augment(images_VBHW3.flatten(0, 1), random.flatten(0, 1))
        if num_views > 1 and batch.repeats.any():  # a view that shows an image again must differ from it
            again = batch.repeats.flatten().nonzero()[:, 0].to(device)
            x[again] = self._augment_more(images_VBHW3.flatten(0, 1)[again], random.flatten(0, 1)[again])
        x_VBCHW = x.view(num_views, num_images, *x.shape[1:])
        with torch.autocast(device.type, self._dtype, enabled=self._dtype is not torch.float32):
            q_VBD = self._embed_views(self._net[0], x_VBCHW[: needs.query_views])
            k_VBD = None
            if self.twin is not None:
                keys = x_VBCHW if needs.identity_pairs else x_VBCHW[needs.query_views :]
                k_VBD = self._embed_views(self.twin, keys)
        out = self.head(q_VBD, batch.ids.to(device, non_blocking=True), k_VBD)
        spread = unit(q_VBD[0].detach()).mean(dim=0).square().sum()
        return StepOutput(out.loss, {**out.stats, "spread": spread})

    @staticmethod
    def _embed_views(net: nn.Module, x_VBCHW: Tensor) -> Tensor:
        """Embeddings (V, B, D), all views in one pass (batch norm sees them together)."""
        num_views, num_images = x_VBCHW.shape[:2]
        return net(x_VBCHW.flatten(0, 1)).view(num_views, num_images, -1)  # type: ignore[no-any-return]

    def skip_step(self) -> None:
        """Forget a step that was not finite."""
        self.head.skip_step()
        torch._foreach_copy_(self._statistics, self._statistics_before)

    def after_step(self, lr: float) -> None:
        """What follows the backbone's optimiser step: the head's rows and the moving average."""
        self.head.after_step(lr)
        if self.average is not None:
            self._averaged += (
                1  # at first the average follows closely: it begins as a network that knows nothing
            )
            momentum = min(self._ema, self._averaged / (9 + self._averaged))
            ema_update_(list(self.average.parameters()), list(self.backbone.parameters()), momentum)
            for mean, now in zip(self.average.buffers(), self.backbone.buffers(), strict=True):
                mean.copy_(now)  # statistics of batch norm are averages already

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and exported: the moving average if there is one."""
        return self.backbone if self.average is None else self.average

    def embed(self, images_BHW3: Tensor) -> Tensor:
        """Raw float32 embeddings (B, D) of uint8 images, in evaluation mode."""
        device, net = self._dist.device, self.evaluated
        with evaluating(net, device, self._dtype):
            return net(normalise(images_BHW3.to(device))).float()  # type: ignore[no-any-return]

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs beside the evaluated network (``write_model``) and the head's rows."""
        trained = None if self.average is None else self.backbone.state_dict()
        twin = None if self.twin is None else self.twin.state_dict()
        return {
            "head": self.head.state_dict(),
            "trained_backbone": trained,
            "averaged": self._averaged,
            "twin": twin,
        }

    def load_state(self, state: dict[str, Any], folder: Path) -> None:
        """Restore what ``state``, ``write_model`` and the head's ``save_rows`` wrote to ``folder``."""
        self.evaluated.load_state_dict(load_file(folder / "model.safetensors"))
        if self.average is not None:
            self.backbone.load_state_dict(state["trained_backbone"])
            self._averaged = state["averaged"]
        if self.twin is not None:
            self.twin.load_state_dict(state["twin"])
        self.head.load_state_dict(state["head"])
        self.head.load_rows(folder)

    def remember(self, results: Sequence[VerificationResult]) -> None:
        """Keep the thresholds of an evaluation (of its first protocol); they travel with the weights."""
        if results:
            self._thresholds = {
                point.far: Threshold(
                    point.threshold, point.threshold_low, point.threshold_high, results[0].name
                )
                for point in results[0].points
                if point.usable
            }

    def write_model(self, path: Path) -> None:
        """Save the evaluated network with all that is needed to use it."""
        spec = self._spec
        backbone = {"name": spec.name, "embedding_size": spec.embedding_size, "options": spec.options}
        contract = Contract(size=self.input_size, flip=self._flip)
        save_model(path, self.evaluated.state_dict(), backbone, contract, self._thresholds, self._info)
