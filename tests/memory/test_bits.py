"""A slot or a vector does not depend on the rest of the batch, whatever the instruction set.

A machine plays lesser ones by telling its libraries what to use, so that one machine proves it for several.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import REPOSITORY

_OWN = torch.backends.cpu.get_cpu_capability()
SETS = {
    "own": {},
    "AVX512 without AMX": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
    "AVX2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}


@pytest.mark.parametrize("name", SETS)
def test_bits_do_not_depend_on_what_is_computed_beside_them(name: str) -> None:
    if name != "own" and not torch.backends.mkldnn.is_available():
        pytest.skip("no libraries whose kernels can be chosen")
    if name.startswith("AVX512") and _OWN != "AVX512":
        pytest.skip(f"this machine has {_OWN}")
    wanted = ["bfloat16"] if name.startswith("AVX512") else []  # AMX has nothing for float32
    process = subprocess.run(
        [sys.executable, "-m", "tests.memory.bits", *wanted],
        cwd=REPOSITORY,
        env=os.environ | SETS[name],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["checked"] == (12 if wanted else 27)
    assert not found["differing"]
    if name == "AVX2":
        assert found["isa"] in ("AVX2", "DEFAULT")
