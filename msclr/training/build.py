"""From a recipe to its encoder, its method and the views that the method takes."""

from __future__ import annotations

import torch
from torch import nn

from msclr.config import Recipe
from msclr.data.dataset import SkeletonDataset
from msclr.data.mixed import MixedDataset
from msclr.data.streams import STREAMS
from msclr.data.sub_layouts import SubLayouts
from msclr.errors import InputError
from msclr.method_keys import READS
from msclr.methods import METHODS
from msclr.nn import STGCN
from msclr.paths import as_path
from msclr.training.batches import ViewMaker
from msclr.training.precision import DTYPES
from msclr.training.sampler import EvenSampler, Sampler

STORAGE_OF = {"fp32": "float32", "fp16": "float16"}  # by data_precision
_OF_VIEWS = {"pairs", "stream"}  # what methods read through the views that they are given


def build_encoder(recipe: Recipe, layouts) -> STGCN:
    """An encoder that a recipe describes, newly initialised."""
    return STGCN(
        layouts,
        hidden_channels=recipe.hidden_channels,
        hidden_dim=recipe.hidden_dim,
        dropout=recipe.dropout,
        bodies=recipe.bodies,
        padding=recipe.padding,
    )


def build_encoders(recipe: Recipe, layouts) -> dict[str, STGCN]:
    """{stream: encoder}, as many as the recipe's method trains."""
    streams = STREAMS if METHODS[recipe.method].per_stream else (recipe.stream,)
    return {stream: build_encoder(recipe, layouts) for stream in streams}


def build_method(recipe: Recipe, layouts) -> nn.Module:
    """The method of a recipe on newly initialised encoders.

    Raises InputError for a single layout where the method contrasts layouts of one clip.
    """
    method = METHODS[recipe.method]
    if method.all_layouts and len(layouts) < 2:
        raise InputError(
            f"method {recipe.method} contrasts the layouts of a clip and needs two or more, "
            f"here is {layouts[0].name} alone; give more layouts, or choose another method"
        )
    encoders = build_encoders(recipe, layouts)
    settings = {key: getattr(recipe, key) for key in READS[recipe.method] - _OF_VIEWS}
    settings["queue_dtype"] = DTYPES[settings.pop("queue_precision")]
    return method(
        encoders if method.per_stream else encoders[recipe.stream],
        embedding_dim=recipe.embedding_dim,
        temperature=recipe.temperature,
        **settings,
    )


def open_clips(recipe: Recipe, device: torch.device, split: str = "train") -> SkeletonDataset:
    """The clips of a recipe's data, on a device."""
    several = isinstance(recipe.data, list)
    data = [as_path(path) for path in recipe.data] if several else as_path(recipe.data)
    storage, derive = STORAGE_OF[recipe.data_precision], recipe.derive or ()
    kind = MixedDataset if several else SkeletonDataset
    drawn = SubLayouts(recipe.sub_layouts, recipe.seed)
    return kind(data, split, recipe.layouts, device, storage, derive=derive, sub_layouts=drawn)


def build_sampler(recipe: Recipe, dataset: SkeletonDataset) -> Sampler | EvenSampler:
    """What draws the clips of the steps."""
    layouts = max(len(part.layouts) for part in dataset.parts)
    if recipe.draw == "even":
        clips = [part.clips for part in dataset.parts]
        return EvenSampler(clips, layouts, recipe.batch_size, recipe.seed)
    return Sampler(len(dataset), layouts, recipe.batch_size, recipe.seed)


def build_views(recipe: Recipe, dataset: SkeletonDataset) -> ViewMaker:
    """What makes the batches that the method of a recipe takes.

    Raises InputError where it contrasts all layouts of each clip and the clips of one data set have
    another number of them than those of another, or a single one.
    """
    method = METHODS[recipe.method]
    if method.all_layouts:
        for part in dataset.parts:
            if len(part.layouts) < 2:
                raise InputError(
                    f"method {recipe.method} contrasts the layouts of a clip, and the clips of "
                    f"{part.store.path} have {', '.join(part.layouts)} alone; give layouts or "
                    "derive another, or choose another method"
                )
    views = ViewMaker(
        dataset,
        STREAMS if method.per_stream else recipe.stream,
        "all" if method.all_layouts else recipe.pairs,
        recipe.seed,
        extreme=method.needs_extreme_view,
        key=method.needs_key_view,
        subsets=recipe.joint_subsets,
        jitter=recipe.joint_jitter,
        derived_share=recipe.derived_share,
    )
    views.strengths = recipe.augment
    return views
