"""Whether a device multiplies bfloat16 numbers in hardware."""

import os

import torch

_CPU_UNITS = ("amx_bf16", "avx512_bf16")
# oneDNN makes the products of a CPU and obeys this; DNNL_ is the older name, ONEDNN_ wins
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}


def multiplies_bf16(device: torch.device) -> bool:
    """Whether ``device`` has units for products of bfloat16: AMX or AVX-512-BF16, Ampere and later on CUDA.

    A CPU whose units oneDNN may not use has none: it would convert every factor, ten times slower.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    limit = next((os.environ[name].upper() for name in _LIMITS if os.environ.get(name)), "")
    if device.type != "cpu" or limit in _WITHOUT_BF16:
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # torch 2.8, the oldest that is supported
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    able = torch.cpu.get_capabilities()
    return any(able.get(unit) for unit in _CPU_UNITS)
