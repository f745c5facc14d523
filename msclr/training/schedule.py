"""The learning rate of a step."""

from __future__ import annotations

import math

from msclr.config import Recipe


def learning_rate(recipe: Recipe, step: int, steps: int, steps_per_epoch: int) -> float:
    """Rate of a step (from 0) of a run of ``steps``: linear warm-up, then the recipe's schedule."""
    if step < recipe.warmup_steps:
        return recipe.lr * (step + 1) / recipe.warmup_steps
    if recipe.schedule == "cosine":
        done = (step - recipe.warmup_steps) / max(steps - recipe.warmup_steps, 1)
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * done))
    passed = sum(step >= epoch * steps_per_epoch for epoch in recipe.milestones)
    return recipe.lr * 0.1**passed
