"""IR networks in the naming of TFace, AdaFace and CVLface (configs also say LResNet50E-IR)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from facescale.backbones.activation_checkpoint import run_blocks
from facescale.backbones.iresnet import last_side
from facescale.backbones.layers import PReLU, in_full_precision
from facescale.backbones.norm import BatchNorm2d, Chain


class SqueezeExcite(nn.Module):
    """A weight per channel from its mean (Hu et al., arXiv 1709.01507)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(width // 16, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh (B, C, H, W)."""
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class IRBlock(nn.Module):
    """IResNet's block; where the width stays, its shortcut takes every ``stride``-th pixel as it is."""

    def __init__(self, num_in: int, num_out: int, stride: int, squeeze_excite: bool) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if num_in != num_out:
            projection = nn.Conv2d(num_in, num_out, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(projection, BatchNorm2d(num_out))
        self.res_layer = Chain(
            BatchNorm2d(num_in),
            nn.Conv2d(num_in, num_out, 3, 1, 1, bias=False),
            BatchNorm2d(num_out),
            PReLU(num_out),
            nn.Conv2d(num_out, num_out, 3, stride, 1, bias=False),
            BatchNorm2d(num_out),
        )
        if squeeze_excite:
            self.res_layer.add_module("se_block", SqueezeExcite(num_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, num_in, H, W) to (B, num_out, H / stride, W / stride)."""
        return self.res_layer(x) + self.shortcut_layer(x)  # type: ignore[no-any-return]


class IR(nn.Module):
    """IR network with the state dict of AdaFace, CVLface and TFace, so that their checkpoints load.

    It differs from `IResNet` in the shortcut of the first block, in an embedding norm without parameters
    and in the names of its entries.

    Example:
        >>> with torch.device("meta"):  # sizes only: nothing is computed
        ...     net = facescale.backbones.build("ir50", embedding_size=512)
        ...     embedding_BD = net(torch.zeros(2, 3, net.input_size, net.input_size))
        >>> tuple(embedding_BD.shape)
        (2, 512)

    Args:
        num_blocks: residual blocks of the four stages.
        embedding_size: width of the embedding.
        squeeze_excite: channel attention at the end of every block.
        dropout: share of the flattened last map that is dropped in training.
        input_size: side of the (square) image in pixels.
        checkpointing: compute activations again in the backward pass instead of keeping them.
    """

    def __init__(
        self,
        num_blocks: Sequence[int],
        squeeze_excite: bool,
        embedding_size: int = 512,
        *,
        dropout: float = 0.4,
        input_size: int = 112,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        self.input_size = input_size
        self.checkpointing = checkpointing
        self.input_layer = Chain(nn.Conv2d(3, 64, 3, 1, 1, bias=False), BatchNorm2d(64), PReLU(64))
        self.output_layer = nn.Sequential(
            BatchNorm2d(512),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(512 * last_side(input_size) ** 2, embedding_size),
            nn.BatchNorm1d(embedding_size, affine=False),
        )
        blocks, num_in = [], 64
        for repetitions, width in zip(num_blocks, (64, 128, 256, 512), strict=True):
            for i in range(repetitions):
                blocks.append(IRBlock(num_in, width, 2 if i == 0 else 1, squeeze_excite))
                num_in = width
        self.body = nn.Sequential(*blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) to embeddings (B, embedding_size) that are not unit vectors."""
        checkpointing = self.checkpointing and self.training
        x = run_blocks(self.body, run_blocks([self.input_layer], x, checkpointing), checkpointing)
        norm, dropout, flatten, linear, embedding_norm = self.output_layer
        return embedding_norm(in_full_precision(linear, flatten(dropout(norm(x)))))  # type: ignore[no-any-return]
