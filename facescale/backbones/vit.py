"""Vision transformers as insightface trains them: patches of 9 pixels, no class token, ReLU6."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facescale.backbones.activation_checkpoint import run_blocks
from facescale.backbones.layers import in_full_precision

PATCH = 9


class TokenBatchNorm(nn.Module):
    """Batch norm with one pair of statistics per token (not per channel), as insightface's "bn" choice."""

    def __init__(self, num_tokens: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(num_tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, tokens, D)."""
        return self.bn(x)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al., arXiv 1706.03762, equation 1); qkv without bias."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, tokens, D) to the same shape."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two linear maps with ReLU6 between; the hidden width is four times the outer one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, tokens, D) to the same shape."""
        return self.fc2(F.relu6(self.fc1(x)))  # type: ignore[no-any-return]


class DropPath(nn.Module):
    """Drop the branch for a fraction of the images of a batch (stochastic depth, arXiv 1603.09382)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Scale (B, ...) by 0 or 1 / (1 - rate), image by image; in training only."""
        if self.rate == 0 or not self.training:
            return x
        keep = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(1 - self.rate)
        return x * keep / (1 - self.rate)


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, num_heads: int, norms: list[nn.Module], drop_path: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = norms
        self.attn = Attention(width, num_heads)
        self.mlp = Mlp(width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, tokens, D) to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class PatchEmbedding(nn.Module):
    """Patches to tokens. Pixels that fill no whole patch (4 rows and columns of 112) are not read."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, S, S) to tokens (B, (S // 9) ** 2, D)."""
        return self.proj(x).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """Vision transformer with insightface's state dict, so that its checkpoints load as they are.

    Example:
        >>> with torch.device("meta"):  # sizes only: nothing is computed
        ...     net = facescale.backbones.build("vit_t", embedding_size=512)
        ...     embedding_BD = net(torch.zeros(2, 3, net.input_size, net.input_size))
        >>> tuple(embedding_BD.shape)
        (2, 512)

    Args:
        width: of a token.
        depth: number of blocks.
        num_heads: attention heads of a block.
        embedding_size: width of the embedding.
        drop_path: rate of dropped branches in the last block; it grows linearly from 0 in the first.
        mask_ratio: share of the tokens that a training step leaves out (as MAE, arXiv 2111.06377); a learned
            token takes their places after the blocks.
        norm: layer norm, or batch norm with statistics per token.
        input_size: side of the (square) image in pixels.
        checkpointing: compute activations again in the backward pass instead of keeping them.

    Raises:
        ValueError: a rate outside [0, 1), "bn" together with masking, or an image smaller than a patch.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        num_heads: int,
        embedding_size: int = 512,
        *,
        drop_path: float = 0.1,
        mask_ratio: float = 0.1,
        norm: Literal["ln", "bn"] = "ln",
        input_size: int = 112,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        _check(drop_path, mask_ratio, norm, input_size)
        self.embedding_size = embedding_size
        self.input_size = input_size
        self.checkpointing = checkpointing
        self.mask_ratio = mask_ratio
        tokens = (input_size // PATCH) ** 2

        def make_norm() -> nn.Module:
            return nn.LayerNorm(width) if norm == "ln" else TokenBatchNorm(tokens)

        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.patch_embed = PatchEmbedding(width)
        rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
        self.blocks = nn.Sequential(
            *(TransformerBlock(width, num_heads, [make_norm(), make_norm()], rate) for rate in rates)
        )
        self.norm = make_norm()
        self.feature = nn.Sequential(
            nn.Linear(width * tokens, width, bias=False),
            nn.BatchNorm1d(width, eps=2e-5),
            nn.Linear(width, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size, eps=2e-5),
        )
        nn.init.normal_(self.mask_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) to embeddings (B, embedding_size) that are not unit vectors."""
        x = self.patch_embed(x) + self.pos_embed
        places = None
        if self.training and self.mask_ratio > 0:
            x, places = self._leave_out(x)
        x = run_blocks(self.blocks, x, self.checkpointing and self.training)
        x = in_full_precision(self.norm, x)
        if places is not None:
            x = self._fill_in(x, places)
        return in_full_precision(self.feature, x.flatten(1))

    def _leave_out(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Keep a random part of the tokens of each image; also return the places (B, kept) of those kept."""
        num_images, num_tokens, width = x_BTD.shape
        num_kept = int(num_tokens * (1 - self.mask_ratio))
        places = torch.rand(num_images, num_tokens, device=x_BTD.device).argsort(1)[:, :num_kept]
        return x_BTD.gather(1, places[:, :, None].expand(-1, -1, width)), places

    def _fill_in(self, x_BKD: Tensor, places_BK: Tensor) -> Tensor:
        """Put the kept tokens back to their places, and the learned token everywhere else."""
        num_images, _, width = x_BKD.shape
        everywhere = self.mask_token.to(x_BKD.dtype).expand(num_images, self.pos_embed.shape[1], width)
        return everywhere.scatter(1, places_BK[:, :, None].expand(-1, -1, width), x_BKD)


def _check(drop_path: float, mask_ratio: float, norm: str, input_size: int) -> None:
    if input_size < PATCH:
        raise ValueError(f"input_size = {input_size} is smaller than a patch; give {PATCH} pixels or more")
    for name, rate in (("drop_path", drop_path), ("mask_ratio", mask_ratio)):
        if not 0 <= rate < 1:
            raise ValueError(f"{name} = {rate} is out of range; use a number from 0 to below 1")
    if norm == "bn" and mask_ratio > 0:
        raise ValueError(
            f"norm = 'bn' has statistics for every token, so mask_ratio = {mask_ratio} cannot drop any; "
            "set mask_ratio = 0 or norm = 'ln'"
        )
