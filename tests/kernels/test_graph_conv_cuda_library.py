"""What the compiler made of the CUDA kernels."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from importlib import util
from pathlib import Path

import pytest

import msclr.kernels

LIBRARY = Path(msclr.kernels.__file__).parent / "_C_cuda.so"
TENSOR_CORE_KERNELS = {
    f"{kernel}<{dtype}>": instructions
    for kernel, instructions in {
        "convolve_tiles": ("HMMA", "LDGSTS", r"LDS\.128", r"STG\.E\.128"),
        "weight_gradient_of_share": ("HMMA", "LDGSTS", "LDSM"),
        "adjacency_gradient_of_share": ("HMMA", "LDGSTS", r"LDS\.128"),
    }.items()
    for dtype in ("BFloat16", "Half")
}


def cuobjdump(*options: str) -> str:
    """Its report on the built library, names of kernels as in the source."""
    if not LIBRARY.is_file():
        if shutil.which("nvcc"):
            pytest.fail(f"{LIBRARY} was not built although there is an nvcc; run make")
        pytest.skip("no CUDA operators were built: there is no nvcc")
    path = shutil.which("cuobjdump")
    if not path and (triton := util.find_spec("triton")):
        path = Path(triton.origin).parent / "backends/nvidia/bin/cuobjdump"
    if not path or not shutil.which("c++filt"):
        pytest.skip("no cuobjdump, which comes with CUDA and with triton, or no c++filt")
    text = subprocess.run([path, *options, LIBRARY], capture_output=True, text=True, check=True)
    names = subprocess.run(["c++filt"], input=text.stdout, capture_output=True, text=True)
    return names.stdout.replace("msclr::gpu::", "")


def test_the_library_is_for_both_architectures_without_spills():
    kernels = defaultdict(set)
    for section in cuobjdump("-res-usage").split("arch = ")[1:]:
        arch = section.split()[0]
        for name, usage in re.findall(r"Function (?:void )?(\S+?)\(.*\n(.*REG:.*)", section):
            numbers = dict(re.findall(r"(\w+):(\d+)", usage))
            assert numbers["STACK"] == numbers["LOCAL"] == "0", f"{name}, {arch}: {usage}"
            assert int(numbers["SHARED"]) <= 1024, "shared memory is asked for at launch"
            kernels[arch].add(name)
    assert kernels["sm_80"] == kernels["sm_90a"]
    assert set(TENSOR_CORE_KERNELS) < kernels["sm_80"]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_kernels_for_16_bits_use_the_tensor_cores(arch):
    code = {
        section.split("(")[0].removeprefix("void ").strip(): section
        for section in cuobjdump("-sass", "-arch", arch).split("Function : ")[1:]
    }
    for kernel, instructions in TENSOR_CORE_KERNELS.items():
        for instruction in instructions:
            assert re.search(rf"\b{instruction}\b", code[kernel]), f"{kernel}: {instruction}"
