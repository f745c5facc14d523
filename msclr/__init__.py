"""msclr: fast multi-skeleton contrastive learning."""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

_SUBMODULES = ("data", "evaluation", "kernels", "layouts", "methods", "nn", "training")

__all__ = ["__version__", *_SUBMODULES]


def __getattr__(name: str):  # submodules load on first use, so that `import msclr` stays quick
    if name in _SUBMODULES:
        return import_module(f"msclr.{name}")
    raise AttributeError(f"module 'msclr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
