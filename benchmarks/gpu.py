"""One visit to a GPU: what is right, what is fast, where the time goes. One table at the end, to be sent with an issue.

| section    | tells                                                                            | least s |
|------------|----------------------------------------------------------------------------------|---------|
| device     | versions; products, copies, transfers, launches: what predictions rest on          | 15      |
| recorded   | the cases recorded from the reference, in float32 (needs pytest and MEMORAG_GOLDEN) | 40      |
| consistent | bits of memories read again, in other passes, extended; replies alone and together | 40      |
| kernels    | ways to attend at the shapes of a pass and of a decode step                        | 60      |
| memorize   | 32K and 200K tokens at ratio 4: seconds, TFLOP/s, peak; kernels by time            | 50      |
| decode     | 1, 16, 64 and 256 rows over 51,200 slots; a step by its kernels                    | 80      |
| files      | saving and opening a memory of that size, bfloat16 and int8                        | 35      |
| selected   | 32K tokens selected by attention                                                   | 15      |
| training   | steps at the shape of a model of 135M parameters: tokens/s and peak                | 30      |
| long       | 1M tokens at ratio 16                                                              | 75      |

Each section is tried by itself: one that fails is told, and one for which too little time is left is skipped. Weights
are random numbers at the shape of Qwen2-7B (15 GiB), so that nothing is downloaded. Needed are torch, transformers,
safetensors, pydantic and numpy; accelerate for `training`.

Run on an idle GPU: python -m benchmarks.gpu --append benchmarks/results/DEVICE.jsonl
A rehearsal in seconds, also without a GPU: python -m benchmarks.gpu --toy
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import torch

from benchmarks import gpu_device, gpu_engine
from benchmarks.figures import Report
from benchmarks.gpu_visit import TOY, Sizes, Visit
from benchmarks.timing import device_name

SECTIONS: dict[str, tuple[Callable[[Visit], None], int]] = {  # and the seconds that each is given at least
    "device": (gpu_device.environment, 15),
    "recorded": (gpu_engine.recorded, 40),
    "consistent": (gpu_engine.consistent, 40),
    "kernels": (gpu_device.kernels, 60),
    "memorize": (gpu_engine.memorize, 50),
    "decode": (gpu_engine.decoding, 80),
    "files": (gpu_engine.files, 35),
    "selected": (gpu_engine.selected, 15),
    "training": (gpu_engine.training, 30),
    "long": (gpu_engine.long_stream, 75),
}


def main(argv: Sequence[str] | None = None) -> Visit:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks.gpu"
    )
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), help="sections")
    parser.add_argument("--seconds", type=float, default=600, help="that the visit may take")
    parser.add_argument("--toy", action="store_true", help="toy sizes: a rehearsal")
    parser.add_argument("--append", type=Path, help="file that the lines of JSON are appended to")
    given = parser.parse_args(argv)
    common = {"device": device_name(), "torch": torch.__version__, "toy": given.toy}
    visit = Visit(TOY if given.toy else Sizes(), given.seconds, Report("gpu", common, given.append))
    if not visit.on_gpu and not given.toy:
        parser.error("there is no GPU; rehearse with --toy")
    torch.manual_seed(0)
    for name in given.only:
        run(visit, name, *SECTIONS[name])
    visit.print_table()
    return visit


def run(visit: Visit, name: str, section: Callable[[Visit], None], least: int) -> None:
    """One section, if there is time for it; its error is told and ends nothing else."""
    visit.section = name
    if visit.left < least:
        visit.say(f"[{name}]", "skipped", note=f"{visit.left:.0f} s are left, at least {least} are wanted")
        return
    started = time.monotonic()
    try:
        with torch.inference_mode(name != "training"):
            section(visit)
    except Exception as error:
        visit.failed.append(name)
        visit.say(f"[{name}]", "FAILED", note=f"{type(error).__name__}: {str(error).strip()[:200]}")
        traceback.print_exc()
    if visit.on_gpu:
        torch.cuda.empty_cache()
    visit.say(f"[{name}]", time.monotonic() - started, "s")


if __name__ == "__main__":
    logging.getLogger("memorag_pipeline").setLevel(logging.ERROR)  # that beacons are untrained is on purpose
    sys.exit(1 if main().failed else 0)
