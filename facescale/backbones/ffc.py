"""The networks of F2C (K. Wang et al., arXiv 2105.10375; github.com/tiandunx/FFC): unit embeddings."""

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from facescale.backbones.activation_checkpoint import run_blocks
from facescale.backbones.iresnet import IResNet, last_side
from facescale.backbones.layers import GroupedConv2d, PReLU, in_full_precision
from facescale.backbones.norm import BatchNorm2d, Chain


class UnitIResNet(IResNet):
    """IResNet whose embeddings are unit vectors.

    Example:
        >>> with torch.device("meta"):  # sizes only: nothing is computed
        ...     net = facescale.backbones.build("ffc_ir50", embedding_size=512)
        ...     embedding_BD = net(torch.zeros(2, 3, net.input_size, net.input_size))
        >>> tuple(embedding_BD.shape)
        (2, 512)
    """

    def embed(self, x: Tensor) -> Tensor:
        """Map the normalised last map to unit embeddings (B, embedding_size)."""
        return F.normalize(super().embed(x))


def conv_norm(
    num_in: int,
    num_out: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    groups: int = 1,
    linear: bool = False,
) -> nn.Sequential:
    """Convolution, batch norm and, unless ``linear``, PReLU, under the release's names."""
    conv_class = nn.Conv2d if groups == 1 else GroupedConv2d
    padding = 1 if kernel == 3 else 0
    parts: list[tuple[str, nn.Module]] = [
        ("conv", conv_class(num_in, num_out, kernel, stride, padding, groups=groups, bias=False)),
        ("bn", BatchNorm2d(num_out)),
    ]
    return Chain(OrderedDict(parts if linear else [*parts, ("prelu", PReLU(num_out))]))


class InvertedBottleneck(nn.Module):
    """Expand, 3x3 depthwise convolution with the stride, project; residual where shapes allow it."""

    def __init__(self, num_in: int, num_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = num_in * expansion
        self.residual = stride == 1 and num_in == num_out
        self.conv = Chain(
            *conv_norm(num_in, hidden, 1),
            *conv_norm(hidden, hidden, 3, stride, groups=hidden),
            *conv_norm(hidden, num_out, 1, linear=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, num_in, H, W) to (B, num_out, H / stride, W / stride)."""
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class FFCMobile(nn.Module):
    """F2C's MobileFaceNet, with the release's state dict.

    Example:
        >>> with torch.device("meta"):  # sizes only: nothing is computed
        ...     net = facescale.backbones.build("ffc_mobile", embedding_size=512)
        ...     embedding_BD = net(torch.zeros(2, 3, net.input_size, net.input_size))
        >>> tuple(embedding_BD.shape)
        (2, 512)

    Args:
        embedding_size: width of the embedding.
        input_size: side of the (square) image in pixels.
        columns: the middle columns that the network sees, for networks of 112 x 96 pixels; 0: all. Their
            faces are aligned as those of 112 x 112, without 8 columns at the left and at the right.
        checkpointing: compute activations again in the backward pass instead of keeping them.

    Raises:
        ValueError: columns that are not the middle of the image.
    """

    # expansion, channels, repetitions, stride of the first
    _STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))

    def __init__(
        self,
        embedding_size: int = 512,
        *,
        input_size: int = 112,
        columns: int = 0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= columns <= input_size or columns % 2 != input_size % 2 * bool(columns):
            raise ValueError(
                f"backbone.columns = {columns} cannot be the middle of {input_size} columns; use 0 for all, "
                f"or as many as leave an equal rest at the left and at the right"
            )
        self.columns = columns or input_size
        self.embedding_size = embedding_size
        self.input_size = input_size
        self.checkpointing = checkpointing
        self.conv1 = conv_norm(3, 64, 3, 2)
        self.dw_conv1 = conv_norm(64, 64, 3, groups=64)
        blocks: list[nn.Module] = []
        num_in = 64
        for expansion, width, repetitions, stride in self._STAGES:
            for i in range(repetitions):
                blocks.append(InvertedBottleneck(num_in, width, stride if i == 0 else 1, expansion))
                num_in = width
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = conv_norm(num_in, 512, 1)
        kernel = last_side(input_size), last_side(self.columns)
        self.linear7 = conv_norm(512, 512, kernel, groups=512, linear=True)
        self.linear1 = conv_norm(512, embedding_size, 1, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) to unit embeddings (B, embedding_size)."""
        if rest := (self.input_size - self.columns) // 2:
            x = x[..., rest : rest + self.columns]
        chain = [self.conv1, self.dw_conv1, *self.blocks, self.conv2]
        x = run_blocks(chain, x, self.checkpointing and self.training)
        x = in_full_precision(self.linear1, in_full_precision(self.linear7, x))
        return F.normalize(x.flatten(1))


class Bottleneck(nn.Module):
    """ResNet's 1x1, 3x3, 1x1 block with the stride on the 3x3 convolution (version 1.5)."""

    def __init__(self, num_in: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_in, width, 1, bias=False)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = BatchNorm2d(4 * width)
        self.downsample: nn.Sequential | None = None
        if project:
            projection = nn.Conv2d(num_in, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, num_in, H, W) to (B, 4 * width, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


class FFCResNet(nn.Module):
    """ResNet without global pooling: its last map is flattened, as IResNet does.

    Example:
        >>> with torch.device("meta"):  # sizes only: nothing is computed
        ...     net = facescale.backbones.build("ffc_r50", embedding_size=512)
        ...     embedding_BD = net(torch.zeros(2, 3, net.input_size, net.input_size))
        >>> tuple(embedding_BD.shape)
        (2, 512)

    Args:
        num_blocks: blocks of the four stages.
        embedding_size: width of the embedding.
        input_size: side of the (square) image in pixels.
        checkpointing: compute activations again in the backward pass instead of keeping them.
    """

    def __init__(
        self,
        num_blocks: Sequence[int],
        embedding_size: int = 512,
        *,
        input_size: int = 224,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        self.input_size = input_size
        self.checkpointing = checkpointing
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = BatchNorm2d(64)
        self.layer1 = self._stage(num_blocks[0], 64, 64, 1)
        self.layer2 = self._stage(num_blocks[1], 256, 128, 2)
        self.layer3 = self._stage(num_blocks[2], 512, 256, 2)
        self.layer4 = self._stage(num_blocks[3], 1024, 512, 2)
        side = last_side(-(-input_size // 2))
        self.fc = nn.Linear(2048 * side**2, embedding_size)
        self.features = nn.BatchNorm1d(embedding_size)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(num_blocks: int, num_in: int, width: int, stride: int) -> nn.Sequential:
        first = Bottleneck(num_in, width, stride, project=True)
        return nn.Sequential(
            first, *(Bottleneck(4 * width, width, 1, project=False) for _ in range(num_blocks - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) to unit embeddings (B, embedding_size)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        checkpointing = self.checkpointing and self.training
        for blocks in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = run_blocks(blocks, x, checkpointing)
        return F.normalize(self.features(in_full_precision(self.fc, x.flatten(1))))
