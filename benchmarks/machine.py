"""What a time was measured on: the name of the processor and the instructions that matter for speed."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")  # of Linux
BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # products of bfloat16 on x86 and, the last, on ARM


def table_name(table: str, device: str) -> str:
    """Of a file of results: each instruction set has its own, such as goals_cpu_avx2.csv; GPUs have goals_cuda.csv."""
    return f"{table}_{device}.csv" if device == "cuda" else f"{table}_cpu_{capability().lower().replace(' ', '_')}.csv"


def described(device: str, threads: int) -> str:
    """Such as "AMD EPYC (AVX2), 2 threads"."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor()} ({capability()}{', bf16' if has_bf16() else ''}), {threads} threads"


def capability() -> str:
    """The instructions that torch's own kernels use, such as "AVX2" or "AVX512"."""
    import torch

    return torch.backends.cpu.get_cpu_capability()


def processor() -> str:
    """The processor's name, else its architecture."""
    name = cpuinfo().get("model name") or sysctl("machdep.cpu.brand_string")
    return name or platform.processor() or platform.machine()


def has_bf16() -> bool:
    """Whether the processor multiplies bfloat16; without these instructions torch emulates it, many times slower than
    float32. False where the system does not say."""
    fields = cpuinfo()
    flags = fields.get("flags") or fields.get("Features") or ""
    return not BF16.isdisjoint(flags.split()) or sysctl("hw.optional.arm.FEAT_BF16") == "1"


def cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; nothing elsewhere."""
    lines = CPUINFO.read_text().partition("\n\n")[0].splitlines() if CPUINFO.is_file() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def sysctl(name: str) -> str:
    """What macOS says of a property; nothing elsewhere."""
    if sys.platform != "darwin":
        return ""
    return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True).stdout.strip()
