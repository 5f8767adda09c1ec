"""IResNet, the residual network of ArcFace (Deng et al., arXiv 1801.07698, section 3.1)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from facescale.backbones.activation_checkpoint import run_blocks
from facescale.backbones.layers import PReLU, in_full_precision
from facescale.backbones.norm import BatchNorm2d, Chain, norm_prelu


class Block(nn.Module):
    """BN, 3x3 convolution, BN, PReLU, 3x3 convolution with the stride, BN; plus the shortcut."""

    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = BatchNorm2d(num_in)
        self.conv1 = nn.Conv2d(num_in, num_out, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm2d(num_out)
        self.prelu = PReLU(num_out)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, stride, 1, bias=False)
        self.bn3 = BatchNorm2d(num_out)
        self.downsample: nn.Sequential | None = None
        if stride > 1:
            projection = nn.Conv2d(num_in, num_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, BatchNorm2d(num_out))

    def residual(self, x: Tensor) -> Tensor:
        """What the block adds to its input."""
        x = norm_prelu(self.bn2, self.prelu, self.conv1(self.bn1(x)))
        return self.bn3(self.conv2(x))  # type: ignore[no-any-return]

    def shortcut(self, x: Tensor) -> Tensor:
        """The input, brought to the output's shape."""
        return x if self.downsample is None else self.downsample(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, num_in, H, W) to (B, num_out, H / stride, W / stride)."""
        return self.residual(x) + self.shortcut(x)


MakeBlock = Callable[[int, int, int], nn.Module]


def stage(make_block: MakeBlock, num_blocks: int, num_in: int, num_out: int) -> nn.Sequential:
    """A chain of blocks that halves the map and goes from ``num_in`` to ``num_out`` channels."""
    first = make_block(num_in, num_out, 2)
    return nn.Sequential(first, *(make_block(num_out, num_out, 1) for _ in range(num_blocks - 1)))


class IResNet(nn.Module):
    """IResNet with insightface's state dict, so that its checkpoints load as they are.

    Example:
        >>> with torch.device("meta"):  # sizes only: nothing is computed
        ...     net = facescale.backbones.build("r18", embedding_size=512)
        ...     embedding_BD = net(torch.zeros(2, 3, net.input_size, net.input_size))
        >>> tuple(embedding_BD.shape)
        (2, 512)

    Args:
        num_blocks: residual blocks of the four stages.
        embedding_size: width of the embedding.
        make_block: builds a block from its input channels, output channels and stride.
        dropout: share of the flattened last map that is dropped in training.
        input_size: side of the (square) image in pixels.
        checkpointing: compute activations again in the backward pass instead of keeping them.
    """

    def __init__(
        self,
        num_blocks: Sequence[int],
        embedding_size: int = 512,
        make_block: MakeBlock = Block,
        *,
        dropout: float = 0.0,
        input_size: int = 112,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        self.input_size = input_size
        self.checkpointing = checkpointing
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = BatchNorm2d(64)
        self.prelu = PReLU(64)
        self.layer1 = stage(make_block, num_blocks[0], 64, 64)
        self.layer2 = stage(make_block, num_blocks[1], 64, 128)
        self.layer3 = stage(make_block, num_blocks[2], 128, 256)
        self.layer4 = stage(make_block, num_blocks[3], 256, 512)
        self.bn2 = BatchNorm2d(512)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(512 * last_side(input_size) ** 2, embedding_size)
        self.features = nn.BatchNorm1d(embedding_size)
        # The scale of the embedding belongs to the margin loss, so this one stays at 1.
        self.features.weight.requires_grad = False
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) to embeddings (B, embedding_size) that are not unit vectors."""
        return self.embed(self.bn2(self.last_map(x)))

    def last_map(self, x: Tensor) -> Tensor:
        """Map images (B, 3, S, S) to the output of the last stage (B, 512, S / 16, S / 16)."""
        checkpointing = self.checkpointing and self.training
        x = run_blocks([Chain(self.conv1, self.bn1, self.prelu)], x, checkpointing)
        for blocks in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = run_blocks(blocks, x, checkpointing)
        return x

    def embed(self, x: Tensor) -> Tensor:
        """Map the normalised last map (B, 512, S / 16, S / 16) to embeddings (B, embedding_size)."""
        x = self.dropout(torch.flatten(x, 1))
        return self.features(in_full_precision(self.fc, x))  # type: ignore[no-any-return]


def last_side(input_size: int) -> int:
    """Side of the map after four strides of two, each rounding up."""
    return -(-input_size // 16)


def r2060(
    embedding_size: int = 512, *, dropout: float = 0.0, input_size: int = 112, checkpointing: bool = True
) -> IResNet:
    """IResNet-2060, which is trained with checkpointing: its activations fit no device otherwise.

    Example:
        >>> from facescale.backbones.profile import skeleton
        >>> net = skeleton("r2060", embedding_size=512)  # sizes only: nothing is computed
        >>> sum(isinstance(part, torch.nn.Conv2d) for part in net.modules())
        2065

    Args:
        embedding_size: width of the embedding.
        dropout: share of the flattened last map that is dropped in training.
        input_size: side of the (square) image in pixels.
        checkpointing: compute activations again in the backward pass instead of keeping them.
    """
    return IResNet(
        (3, 128, 896, 3),
        embedding_size,
        dropout=dropout,
        input_size=input_size,
        checkpointing=checkpointing,
    )
