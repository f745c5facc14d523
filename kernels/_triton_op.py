"""Operators in Triton, which need no compiler: how one is defined."""

from __future__ import annotations

from importlib import import_module

import torch


def define_triton(name: str, schema: str, module: str, function: str) -> None:
    """Define the operator ``msclr::<name>``, run by a function of a module.

    The module is imported at the first call, and Triton with it.
    """

    def run(*arguments):
        return getattr(import_module(module), function)(*arguments)

    torch.library.define(f"msclr::{name}", schema)
    torch.library.impl(f"msclr::{name}", ("cpu", "cuda"), run)
