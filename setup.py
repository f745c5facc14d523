"""Compiles csrc/ into kernels/_C.so and lists the packages; all else stands in pyproject.toml.

_C.so holds operators and no Python symbols: `torch.ops.load_library` loads it
(kernels/_backend.py), any Python version can, and so can every torch from 2.10 on. Where it
cannot be compiled the package installs without it, with a warning, and runs on PyTorch's own ops.
"""

import shlex
import subprocess
import warnings
from glob import glob

from setuptools import Extension, __version__, find_packages, setup

if int(__version__.split(".")[0]) < 77:  # a fresh environment of Python 3.11 comes with 65
    raise SystemExit(
        f"msclr builds with setuptools 77 or later, not {__version__}: pip install -U setuptools"
    )

SOURCES = sorted(glob("csrc/*.cpp") + glob("csrc/cpu/*.cpp"))
FLAGS = [
    "-std=c++20",
    "-O3",
    "-g0",
    "-Wall",
    "-Wno-psabi",  # vector types pass between inlined functions only
    "-ffp-contract=fast",  # a * b + c is one instruction
    "-fvisibility=hidden",
    "-DTORCH_TARGET_VERSION=0x020a000000000000",  # LibTorch's stable ABI of 2.10
]


def why_not_compilable() -> str:
    """Empty where csrc/ can be compiled here, else the reason."""
    try:
        from torch.utils.cpp_extension import get_cxx_compiler, include_paths
    except ImportError as error:
        return (
            f"PyTorch cannot be imported while building ({error}); "
            "install torch first and build with `pip install --no-build-isolation`"
        )
    compiler = [*shlex.split(get_cxx_compiler()), *FLAGS, *(f"-I{p}" for p in include_paths())]
    try:
        probe = subprocess.run(
            [*compiler, "-fsyntax-only", "-x", "c++", "-"],
            input="#include <torch/csrc/stable/library.h>\n",
            capture_output=True,
            text=True,
        )
    except OSError as error:
        return f"the C++ compiler {compiler[0]!r} cannot be run: {error}"
    if probe.returncode:
        first_line = [*probe.stderr.splitlines(), f"exit status {probe.returncode}"][0]
        return f"the C++ compiler {compiler[0]!r} cannot compile LibTorch's headers: {first_line}"
    return ""


def compiled_operators() -> dict:
    """The arguments of setup() that build the libraries; none where nothing can be compiled."""
    if problem := why_not_compilable():
        warnings.warn(f"msclr is built without its compiled operators: {problem}", stacklevel=2)
        return {}
    from setuptools.command.bdist_wheel import bdist_wheel
    from torch.utils.cpp_extension import BuildExtension, include_paths, library_paths

    class BuildOperators(BuildExtension.with_options(no_python_abi_suffix=True)):
        def finalize_options(self):
            super().finalize_options()
            self.build_temp = "build/operators"  # kept, so that ninja compiles what changed only

    class AnyPythonWheel(bdist_wheel):
        def get_tag(self):
            return "py3", "none", super().get_tag()[2]

    operators = Extension(
        "msclr.kernels._C",  # beside _backend.py, installed or in place
        SOURCES,
        depends=glob("csrc/*.h") + glob("csrc/cpu/*.h"),
        include_dirs=include_paths(),
        library_dirs=library_paths(),
        libraries=["torch_cpu"],
        extra_compile_args=FLAGS,
    )
    # A library of csrc/cuda/*.cu joins this list as a second one, `_C_cuda`: one with CUDA symbols
    # does not load in a torch without CUDA.
    return {
        "ext_modules": [operators],
        "cmdclass": {"build_ext": BuildOperators, "bdist_wheel": AnyPythonWheel},
    }


setup(
    packages=[
        *find_packages(include=["msclr", "msclr.*"]),
        "msclr.kernels",
        *(f"msclr.kernels.{name}" for name in find_packages("kernels")),
    ],
    package_dir={"msclr.kernels": "kernels"},
    **compiled_operators(),
)
