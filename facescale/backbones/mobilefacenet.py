"""MobileFaceNet (Chen et al., arXiv 1804.07573) in the wide form that insightface trains."""

from collections.abc import Sequence

from torch import Tensor, nn

from facescale.backbones.activation_checkpoint import run_blocks
from facescale.backbones.layers import GroupedConv2d, PReLU, in_full_precision
from facescale.backbones.norm import BatchNorm2d, Chain


class LinearBlock(nn.Module):
    """Convolution and batch norm."""

    def __init__(
        self, num_in: int, num_out: int, kernel: int = 1, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> None:
        super().__init__()
        conv_class = nn.Conv2d if groups == 1 else GroupedConv2d
        conv = conv_class(num_in, num_out, kernel, stride, padding, groups=groups, bias=False)
        self.layers = Chain(conv, BatchNorm2d(num_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, num_in, H, W) to (B, num_out, H', W')."""
        return self.layers(x)  # type: ignore[no-any-return]


class ConvBlock(LinearBlock):
    """Convolution, batch norm and PReLU."""

    def __init__(
        self, num_in: int, num_out: int, kernel: int = 1, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> None:
        super().__init__(num_in, num_out, kernel, stride, padding, groups)
        self.layers.append(PReLU(num_out))


class DepthWise(nn.Module):
    """Expand to ``hidden`` channels, 3x3 depthwise convolution, project; plus the input when residual."""

    def __init__(
        self, num_in: int, num_out: int, hidden: int, stride: int = 1, residual: bool = False
    ) -> None:
        super().__init__()
        self.residual = residual
        self.layers = nn.Sequential(
            ConvBlock(num_in, hidden),
            ConvBlock(hidden, hidden, 3, stride, 1, groups=hidden),
            LinearBlock(hidden, num_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, num_in, H, W) to (B, num_out, H / stride, W / stride)."""
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class Residual(nn.Module):
    """A chain of residual ``DepthWise`` blocks of one width."""

    def __init__(self, num_blocks: int, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(DepthWise(width, width, hidden, residual=True) for _ in range(num_blocks))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to the same shape."""
        return self.layers(x)  # type: ignore[no-any-return]


class MobileFaceNet(nn.Module):
    """MobileFaceNet with insightface's state dict, so that its checkpoints load as they are.

    Example:
        >>> with torch.device("meta"):  # sizes only: nothing is computed
        ...     net = facescale.backbones.build("mbf", embedding_size=512)
        ...     embedding_BD = net(torch.zeros(2, 3, net.input_size, net.input_size))
        >>> tuple(embedding_BD.shape)
        (2, 512)

    Args:
        num_blocks: blocks of the four stages.
        scale: factor on the widths of the stages (2 for `mbf`, 4 for `mbf_large`); hidden widths stay.
        embedding_size: width of the embedding.
        input_size: side of the (square) image in pixels.
        checkpointing: compute activations again in the backward pass instead of keeping them.
    """

    def __init__(
        self,
        num_blocks: Sequence[int],
        scale: int,
        embedding_size: int = 512,
        *,
        input_size: int = 112,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        self.input_size = input_size
        self.checkpointing = checkpointing
        narrow, wide = 64 * scale, 128 * scale
        # The published small net has one block here, with 64 groups whatever the width.
        second = (
            ConvBlock(narrow, narrow, 3, 1, 1, groups=64)
            if num_blocks[0] == 1
            else Residual(num_blocks[0], narrow, 128)
        )
        self.layers = nn.ModuleList(
            [
                ConvBlock(3, narrow, 3, 2, 1),
                second,
                DepthWise(narrow, narrow, 128, stride=2),
                Residual(num_blocks[1], narrow, 128),
                DepthWise(narrow, wide, 256, stride=2),
                Residual(num_blocks[2], wide, 256),
                DepthWise(wide, wide, 512, stride=2),
                Residual(num_blocks[3], wide, 256),
            ]
        )
        self.conv_sep = ConvBlock(wide, 512)
        self.features = _EmbeddingLayers(embedding_size, -(-input_size // 16))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) to embeddings (B, embedding_size) that are not unit vectors."""
        blocks: list[nn.Module] = []
        for layer in self.layers:
            blocks += layer.layers if isinstance(layer, Residual) else [layer]
        x = run_blocks([*blocks, self.conv_sep], x, self.checkpointing and self.training)
        return in_full_precision(self.features, x)


class _EmbeddingLayers(nn.Module):
    """Depthwise convolution over the whole map, linear map, batch norm."""

    def __init__(self, embedding_size: int, side: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            LinearBlock(512, 512, side, groups=512),
            nn.Flatten(),
            nn.Linear(512, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 512, side, side) to (B, embedding_size)."""
        return self.layers(x)  # type: ignore[no-any-return]
