"""MLA-ArcFace: IResNet with channel, spatial and patch self-attention (github.com/sunlitxin/MLA-ArcFace)."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facescale.backbones.iresnet import Block, IResNet
from facescale.backbones.layers import full_precision
from facescale.backbones.norm import BatchNorm2d


class Blend(nn.Module):
    """a + gamma * b with a learned gamma, the "constraining parameter" of the release."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Add two tensors of one shape."""
        return a + self.gamma.to(b.dtype) * b


class ChannelAttention(nn.Module):
    """A weight per channel, from its mean and its maximum over the map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Conv2d(width, width // 16, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(width // 16, width, 1, bias=False),
        )
        self.lf = Blend()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to weights (B, C, 1, 1)."""
        mean, largest = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return torch.sigmoid(self.lf(self.fc(mean), self.fc(largest)))


class SpatialAttention(nn.Module):
    """A weight per pixel, from the mean and the maximum over its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to weights (B, 1, H, W)."""
        return torch.sigmoid(self.conv1(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))


class HybridAttention(nn.Module):
    """Channel attention, then spatial attention (as CBAM, arXiv 1807.06521, with a learned blend)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ca = ChannelAttention(width)
        self.sa = SpatialAttention()

    def forward(self, x: Tensor) -> Tensor:
        """Weigh (B, C, H, W)."""
        x = self.ca(x) * x
        return self.sa(x) * x  # type: ignore[no-any-return]


class SqueezeExcite(nn.Module):
    """A weight per channel from its mean (Hu et al., arXiv 1709.01507)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(width, width // 16, bias=False), nn.ReLU(), nn.Linear(width // 16, width, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Weigh (B, C, H, W)."""
        return x * torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None]


class CoordinateAttention(nn.Module):
    """Weights per row and per column (Hou et al., arXiv 2103.02907)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(8, width // 32)
        self.conv1 = nn.Conv2d(width, hidden, 1)
        self.bn1 = BatchNorm2d(hidden)
        self.conv_h = nn.Conv2d(hidden, width, 1)
        self.conv_w = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh (B, C, H, W)."""
        height, width = x.shape[2:]
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
        hidden = F.hardswish(self.bn1(self.conv1(torch.cat([rows, columns], 2))))
        rows, columns = hidden.split([height, width], 2)
        by_row = torch.sigmoid(self.conv_h(rows))
        return x * by_row * torch.sigmoid(self.conv_w(columns.transpose(2, 3)))


ATTENTIONS: Mapping[str, Callable[[int], nn.Module]] = {
    "hybrid": HybridAttention,
    "se": SqueezeExcite,
    "ca": CoordinateAttention,
}


class AttentionBlock(Block):
    """IResNet's block with attention before the addition and ReLU after it."""

    def __init__(self, attention: str, num_in: int, num_out: int, stride: int) -> None:
        super().__init__(num_in, num_out, stride)
        self.attn = ATTENTIONS[attention](num_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, num_in, H, W) to (B, num_out, H / stride, W / stride)."""
        return F.relu(self.attn(self.residual(x)) + self.shortcut(x))


class PatchAttention(nn.Module):
    """Self-attention between the 16 x 16 patches of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1_ = nn.Conv2d(3, 512, 16, 16, bias=False)
        self.query_conv = nn.Conv2d(512, 64, 1)
        self.key_conv = nn.Conv2d(512, 64, 1)
        self.value_conv = nn.Conv2d(512, 512, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (B, 3, S, S) to (B, 512, S / 16, S / 16)."""
        x = self.conv1_(image)
        with full_precision(x):
            # Energies are sums of 64 products of large numbers: in fp16 they overflow.
            x = x.to(self.query_conv.weight.dtype)
            q_BKP, k_BKP = self.query_conv(x).flatten(2), self.key_conv(x).flatten(2)
            attention_BPP = (q_BKP.transpose(1, 2) @ k_BKP).clamp(-1, 1).softmax(-1)
            out = self.value_conv(x).flatten(2) @ attention_BPP.transpose(1, 2)
        return out.unflatten(2, x.shape[2:])  # type: ignore[no-any-return]


class MLAIResNet(IResNet):
    """IResNet with three kinds of attention and learned blends, with the release's state dict.

    The text of the release says that self, channel and spatial attention are added to the backbone and
    balanced against the original path by a learned parameter. Its code differs from what one would expect:

    * the self-attention does not see features of the network but raw 16 x 16 patches of the image. It
      has no residual path, no position information and no scale: its energies are clamped to [-1, 1], so that
      no patch weighs more than e^2 times another;
    * one and the same batch norm (``bn2``) normalises the patch branch, the last map and their blend, one
      after the other. Its running statistics mix the three, so none is normalised correctly at inference.
      ``clean=True`` uses one each (more entries in the state dict);
    * the attention is computed in half precision only; here it is finite in fp32, bf16 and fp16.

    Example:
        >>> with torch.device("meta"):  # sizes only: nothing is computed
        ...     net = facescale.backbones.build("mla_r18", embedding_size=512)
        ...     embedding_BD = net(torch.zeros(2, 3, net.input_size, net.input_size))
        >>> tuple(embedding_BD.shape)
        (2, 512)

    Args:
        num_blocks: residual blocks of the four stages.
        embedding_size: width of the embedding.
        attention: of the blocks: "hybrid" (channel and spatial), "se" or "ca" (coordinate).
        clean: separate batch norms for the patch branch and for the blend.
        dropout: share of the flattened last map that is dropped in training.
        input_size: side of the (square) image in pixels, a multiple of 16.
        checkpointing: compute activations again in the backward pass instead of keeping them.

    Raises:
        ValueError: an image side that is not a multiple of 16.
    """

    def __init__(
        self,
        num_blocks: Sequence[int],
        embedding_size: int = 512,
        *,
        attention: Literal["hybrid", "se", "ca"] = "hybrid",
        clean: bool = False,
        dropout: float = 0.0,
        input_size: int = 112,
        checkpointing: bool = False,
    ) -> None:
        if input_size % 16:
            raise ValueError(
                f"input_size = {input_size} does not divide into patches of 16 pixels; "
                f"use {input_size // 16 * 16 or 16} or {input_size // 16 * 16 + 16}"
            )
        super().__init__(
            num_blocks,
            embedding_size,
            partial(AttentionBlock, attention),
            dropout=dropout,
            input_size=input_size,
            checkpointing=checkpointing,
        )
        self.saatten = PatchAttention()
        self.lf = Blend()
        for module in self.saatten.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.1)
        self.clean = clean
        if clean:
            self.patch_norm = BatchNorm2d(512)
            self.blend_norm = BatchNorm2d(512)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) to embeddings (B, embedding_size) that are not unit vectors."""
        patch_norm, blend_norm = (self.patch_norm, self.blend_norm) if self.clean else (self.bn2, self.bn2)
        patches = patch_norm(self.saatten(x))
        blend = self.lf(self.bn2(self.last_map(x)), patches)
        return self.embed(blend_norm(blend))
