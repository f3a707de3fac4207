"""Real data: sources, splits and normalisation."""

from distill.data.batched import MappedImages, select_images, split_by_index
from distill.data.cutting import hold_out, keep_subset
from distill.data.loading import load_data
from distill.data.pixels import resize_images, to_channels
from distill.data.preprocess import (
    AnyPreprocess,
    Preprocess,
    ZCAPreprocess,
    fit_preprocess,
    fit_zca,
)
from distill.data.source_splits import Request, SourceSplits
from distill.data.sources.idx import read_idx
from distill.data.splits import (
    DataError,
    RealData,
    SourceError,
    Split,
    build_real_data,
    per_class_indices,
    require_per_class,
)

__all__ = [
    "AnyPreprocess",
    "DataError",
    "MappedImages",
    "Preprocess",
    "RealData",
    "Request",
    "SourceError",
    "SourceSplits",
    "Split",
    "ZCAPreprocess",
    "build_real_data",
    "fit_preprocess",
    "fit_zca",
    "hold_out",
    "keep_subset",
    "load_data",
    "per_class_indices",
    "read_idx",
    "require_per_class",
    "resize_images",
    "select_images",
    "split_by_index",
    "to_channels",
]
