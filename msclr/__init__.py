"""msclr: fast multi-skeleton contrastive learning."""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

_SUBMODULES = ("data", "encoder", "evaluation", "kernels", "layouts", "methods", "nn", "training")
_HOMES = {"Encoder": "encoder", "load": "encoder"}

__all__ = ["__version__", *_HOMES, *_SUBMODULES]


def __getattr__(name: str):  # submodules load on first use, so that `import msclr` stays quick
    if name in _SUBMODULES:
        return import_module(f"msclr.{name}")
    if name in _HOMES:
        return getattr(import_module(f"msclr.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'msclr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
