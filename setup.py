"""Compiles csrc/*/cpu.cpp into kernels/_C.so, with nvcc csrc/*/cuda.cu into kernels/_C_cuda.so,
and csrc/skeleton_io/ into msclr/data/_skeleton_io.*.so; lists the packages. All else is in
pyproject.toml.

The first two hold operators and no Python symbols: `torch.ops.load_library` loads them
(kernels/_backend.py), any Python version can, and so can every torch from 2.10 on. The third is a
module of one Python version. Where one cannot be compiled the package installs without it, with a
warning, and runs on PyTorch's own ops, or reads .skeleton files in Python.
"""

import os
import shlex
import shutil
import subprocess
import warnings
from glob import glob

from setuptools import Extension, __version__, find_packages, setup

if int(__version__.split(".")[0]) < 77:  # a fresh environment of Python 3.11 comes with 65
    raise SystemExit(
        f"msclr builds with setuptools 77 or later, not {__version__}: pip install -U setuptools"
    )

SOURCES = sorted(glob("csrc/common/*.cpp") + glob("csrc/*/cpu.cpp"))
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020a000000000000"  # LibTorch's, of 2.10
OPTIMISED = [] if "-O" in os.environ.get("CFLAGS", "") else ["-O3"]  # `make sanitize` wants less
FLAGS = [
    "-std=c++20",
    *OPTIMISED,
    "-g0",
    "-Wall",
    "-Wno-psabi",  # vector types pass between inlined functions only
    "-ffp-contract=fast",  # a * b + c is one instruction
    "-fvisibility=hidden",
    STABLE_ABI,
]

READER = "msclr.data._skeleton_io"
READER_FLAGS = [
    "-std=c++20",
    "-O3",
    "-g0",
    "-Wall",
    "-Wno-uninitialized",  # GCC 12 says so of its own AVX-512 headers
    "-Wno-maybe-uninitialized",
    "-fvisibility=hidden",
]

CUDA_SOURCES = sorted(glob("csrc/*/cuda.cu"))
CUDA_FLAGS = [
    "-std=c++20",
    "-O3",
    "-shared",  # with CUDA's runtime inside, which is nvcc's default
    "--compiler-options=-fPIC,-fvisibility=hidden",
    # Machine code for Ampere and its successors up to Ada, and for Hopper; PTX for what came later.
    "--generate-code=arch=compute_80,code=[sm_80,compute_80]",
    "--generate-code=arch=compute_90a,code=sm_90a",
    "--threads=0",
    STABLE_ABI,
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


def cuda_compiler() -> str | None:
    """The path of nvcc: that of CUDA_HOME, or the one on PATH."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc", path=f"{home}/bin" if home else None)


def compile_cuda_operators(nvcc: str, target: str) -> None:
    """Compile csrc/*/cuda.cu into the library ``target``."""
    from setuptools.errors import CompileError
    from torch.utils.cpp_extension import include_paths, library_paths

    folders = [f"-I{p}" for p in include_paths()] + [f"-L{p}" for p in library_paths()]
    # libtorch.so, of which nothing is used by name, brings in the library with CUDA's functions.
    libraries = ["-Xlinker", "--no-as-needed", "-ltorch"]
    command = [nvcc, *CUDA_FLAGS, *folders, *CUDA_SOURCES, *libraries, "-o", target]
    print(shlex.join(command), flush=True)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if subprocess.run(command).returncode:
        raise CompileError(f"{nvcc} cannot compile {', '.join(CUDA_SOURCES)}")


def skeleton_reader() -> list[Extension]:
    """The reader of .skeleton files; none where pybind11's headers are missing."""
    try:
        from pybind11 import get_include
    except ImportError as error:
        warnings.warn(
            f"msclr is built without its compiled reader of .skeleton files: {error}", stacklevel=2
        )
        return []
    return [
        Extension(
            READER,
            sorted(glob("csrc/skeleton_io/*.cpp")),
            depends=["setup.py", *glob("csrc/skeleton_io/*.h")],
            include_dirs=[get_include()],
            extra_compile_args=READER_FLAGS,
            language="c++",
            optional=True,  # a failure is a warning
        )
    ]


def compiled() -> dict:
    """The arguments of setup() that build the libraries; none where nothing can be compiled."""
    reader = skeleton_reader()
    if problem := why_not_compilable():
        warnings.warn(f"msclr is built without its compiled operators: {problem}", stacklevel=2)
        return {"ext_modules": reader}
    from setuptools.command.bdist_wheel import bdist_wheel
    from setuptools.errors import CompileError
    from setuptools.modified import newer_group
    from torch.utils.cpp_extension import BuildExtension, include_paths, library_paths

    class BuildOperators(BuildExtension.with_options(no_python_abi_suffix=True)):
        def finalize_options(self):
            super().finalize_options()
            self.build_temp = "build/operators"  # kept, so that ninja compiles what changed only

        def get_ext_filename(self, name):
            # Torch's own leaves out the Python version for all, or for none.
            self.no_python_abi_suffix = not name.endswith(READER.rpartition(".")[2])
            return super().get_ext_filename(name)

        def build_extension(self, extension):
            if extension is not cuda_operators:
                try:
                    return super().build_extension(extension)
                except RuntimeError as error:  # of torch's; setuptools knows its own only
                    raise CompileError(str(error)) from error
            kept = os.path.join(self.build_temp, "_C_cuda.so")
            if newer_group(extension.depends, kept):
                compile_cuda_operators(nvcc, kept)
            target = self.get_ext_fullpath(extension.name)
            self.mkpath(os.path.dirname(target))
            self.copy_file(kept, target)

    class AnyPythonWheel(bdist_wheel):
        def get_tag(self):
            return "py3", "none", super().get_tag()[2]

    operators = Extension(
        "msclr.kernels._C",  # next to _backend.py, installed or in place
        SOURCES,
        depends=[h for h in glob("csrc/**/*.h", recursive=True) if "skeleton_io" not in h],
        include_dirs=include_paths(),
        library_dirs=library_paths(),
        libraries=["torch_cpu"],
        extra_compile_args=FLAGS,
    )
    # A library of its own: one with CUDA's symbols does not load in a torch without CUDA. It names
    # no sources, for torch's build of them wants a torch with CUDA.
    cuda_operators = Extension(
        "msclr.kernels._C_cuda",
        [],
        depends=["setup.py", *CUDA_SOURCES, *glob("csrc/*/*.h"), *glob("csrc/*/cuda/*")],
        optional=True,  # a failure is a warning
    )
    nvcc = cuda_compiler()
    if not nvcc:
        warnings.warn(
            "msclr is built without its CUDA operators: no nvcc in CUDA_HOME or on PATH",
            stacklevel=2,
        )
    return {
        "ext_modules": [operators, *([cuda_operators] if nvcc else []), *reader],
        "cmdclass": {
            "build_ext": BuildOperators,
            **({} if reader else {"bdist_wheel": AnyPythonWheel}),
        },
    }


setup(
    packages=[
        *find_packages(include=["msclr", "msclr.*"]),
        "msclr.kernels",
        *(f"msclr.kernels.{name}" for name in find_packages("kernels")),
        # In a folder of their own, which `msclr bench` imports them from by their own name.
        *(f"msclr._benchmarks.{name}" for name in find_packages(include=["benchmarks*"])),
    ],
    package_dir={"msclr.kernels": "kernels", "msclr._benchmarks.benchmarks": "benchmarks"},
    **compiled(),
)
