"""The kernels in Triton: right in its interpreter, and compiled for a Hopper card without registers that spill."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[3]

pytest.importorskip("triton", reason="comes with a build of torch with CUDA: make test-cuda-counts")


def test_kernels_give_what_is_computed_step_by_step() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "tests.memory.cuda.kernels"],
        cwd=REPOSITORY,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    assert len(found) == 8
    assert max(found.values()) < 1e-3, found  # the rounding of float16
    assert max(value for name, value in found.items() if name.startswith("windows")) < 1e-5, found


def compiled_for_hopper(kernel: Any, types: list[str], constants: dict[str, int], warps: int, folder: Path) -> str:
    """What the assembler says of registers; `types` are those of the arguments that are no constants."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = [name for name in kernel.arg_names if name not in constants]
    signature = dict(zip(names, types, strict=True)) | dict.fromkeys(constants, "constexpr")
    # As at run time: blocks of memory and steps between rows are multiples of 16.
    even = [number for number, name in enumerate(kernel.arg_names) if name.endswith("_") or name[-2:] in ("_n", "_h")]
    aligned = {(number,): [["tt.divisibility", 16]] for number in even}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps, "num_stages": 3})
    path = folder / "kernel.ptx"
    path.write_text(made.asm["ptx"], encoding="utf-8")
    assembler = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    process = subprocess.run(
        [assembler, "-v", "--gpu-name", "sm_90a", path, "-o", folder / "kernel.cubin"], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return process.stderr


@pytest.mark.parametrize("name", ["merge", "rotate", "gate", "windows 64", "windows 128"])
def test_kernels_compile_for_a_hopper_card(name: str, tmp_path: Path) -> None:
    from memorag_pipeline.memory.engine import fused_kernels, window_kernel

    size = int(name.rpartition(" ")[2]) if name.startswith("windows") else 0
    kernel, types, constants, warps = {
        "merge": (fused_kernels._merge, ["*bf16", "*fp32", "*bf16", "*fp32", "*bf16", "*fp32"], (128, 128), 1),
        "rotate": (fused_kernels._rotate, ["*bf16"] * 4, (64, 64), 1),
        "gate": (fused_kernels._gate, ["*bf16"] * 2, (18944, 1024), 4),
    }.get(name, (window_kernel._attend, ["*bf16"] * 6 + ["*i32"] * 2 + ["fp32"], (), 8 if size > 64 else 4))
    named = [each for each in kernel.arg_names if each.isupper()]
    values = constants or (7, 28, size, 128, 64)
    numbers = len(kernel.arg_names) - len(types) - len(named)
    said = compiled_for_hopper(
        kernel, types + ["i32"] * numbers, dict(zip(named, values, strict=True)), warps, tmp_path
    )
    spilled = re.findall(r"(\d+) bytes spill", said)
    assert spilled and {*spilled} == {"0"}, said
    assert int(re.findall(r"Used (\d+) registers", said)[0]) <= 255
