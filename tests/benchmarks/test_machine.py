"""What a file of results says of the machine."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest

AMD = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: sse4_2 avx2\n\nprocessor\t: 1\nmodel name\t: another\n"
INTEL = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)\nflags\t\t: avx512f avx512_bf16 amx_bf16\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\nCPU implementer\t: 0x41\n"


@pytest.fixture
def machine(program):
    return program("machine")


@pytest.fixture
def given(machine, monkeypatch, tmp_path):
    """Puts a text in place of /proc/cpuinfo, None for no such file, and names torch's instructions."""

    def given(text, capability):
        file = tmp_path / "cpuinfo"
        if text is not None:
            file.write_text(text)
        monkeypatch.setattr(machine, "CPUINFO", file)
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
        monkeypatch.setattr("sys.platform", "linux")

    return given


@pytest.mark.parametrize(
    "text, capability, what",
    [
        (AMD, "AVX2", "AMD EPYC (AVX2), 2 threads"),
        (INTEL, "AVX512", "Intel(R) Xeon(R) (AVX512, bf16), 2 threads"),
        (ARM, "SVE256", "aarch64 (SVE256, bf16), 2 threads"),
        (None, "DEFAULT", "aarch64 (DEFAULT), 2 threads"),
    ],
)
def test_a_processor_is_named_with_its_instructions(machine, given, monkeypatch, text, capability, what):
    given(text, capability)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert machine.described("cpu", 2) == what


def test_macos_is_asked_by_sysctl(machine, given, monkeypatch):
    answers = {"machdep.cpu.brand_string": "Apple M2\n", "hw.optional.arm.FEAT_BF16": "1\n"}

    def run(command, **kwargs):
        return SimpleNamespace(stdout=answers[command[-1]])

    given(None, "DEFAULT")
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr(subprocess, "run", run)
    assert machine.described("cpu", 8) == "Apple M2 (DEFAULT, bf16), 8 threads"
    answers["hw.optional.arm.FEAT_BF16"] = ""  # of processors that do not know the property
    assert machine.described("cpu", 8) == "Apple M2 (DEFAULT), 8 threads"


def test_files_tell_instruction_sets_apart(machine, given):
    given(AMD, "AVX2")
    assert machine.table_name("goals", "cpu") == "goals_cpu_avx2.csv"
    given(AMD, "Z VECTOR")
    assert machine.table_name("goals", "cpu") == "goals_cpu_z_vector.csv"
    assert machine.table_name("goals", "cuda") == "goals_cuda.csv"
