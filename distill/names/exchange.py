"""The layouts of sets that can be imported, and the formats that are exported. Imports no torch."""

from __future__ import annotations

from distill.names.entries import Entry, FormatEntry, Registry

_READERS = "distill.sets.exchange.import_layouts"

_WRITERS = "distill.sets.exchange.export_formats"

_PICTURES = "distill.sets.exchange.export_pictures"

_REPLAY = "distill.sets.exchange.export_replay"

_ARCHIVES = "distill.sets.exchange.arrays"

_PROJECTORS = "projectors.export.formats"

# An object is called as (path) -> ImportedSet.
LAYOUTS: Registry[Entry] = Registry(
    "layout",
    (
        Entry("mtt", "images_best.pt and labels beside it", "MTT, TESLA", f"{_READERS}:import_mtt"),
        Entry("dc", "one file of data and labels", "DC, DSA, DM", f"{_READERS}:import_dc"),
        Entry("datm", "images, label logits and lr", "DATM", f"{_READERS}:import_datm"),
        Entry("idc", "one file of pixels and labels", "IDC", f"{_READERS}:import_idc"),
        Entry("rded", "a folder of pictures per class", "RDED", f"{_READERS}:import_folder"),
        Entry("npz", "arrays images and labels", "NumPy", f"{_READERS}:import_npz"),
        Entry("torch", "tensors images and labels", "torch", f"{_READERS}:import_tensors"),
        Entry(
            "safetensors",
            "tensors images and labels",
            "safetensors",
            f"{_READERS}:import_safetensors",
        ),
        Entry("folder", "a folder of pictures per class", "textbook", f"{_READERS}:import_folder"),
    ),
)

# An object is called as (path) -> the experts of each file, see `read_buffers`.
EXPERT_LAYOUTS: Registry[Entry] = Registry(
    "layout",
    (
        Entry(
            "buffers",
            "experts: replay_buffer_N.pt, to experts.h5",
            "MTT, TESLA, DATM",
            "distill.sets.exchange.expert_buffers:read_buffers",
        ),
    ),
)

# An object is called as (address, folder, download=) -> sentences, see `pull_set`.
HUB_LAYOUTS: Registry[Entry] = Registry(
    "layout",
    (
        Entry(
            "hub",
            "hf://OWNER/NAME: a set and its projector, to a folder",
            "Hugging Face hub",
            "distill.sets.exchange.hub:pull_set",
        ),
    ),
)

FORMATS: Registry[FormatEntry] = Registry(
    "format",
    (
        FormatEntry(
            "safetensors",
            "all of a set; can be imported again",
            "safetensors",
            f"{_WRITERS}:write_safetensors",
            file="set.safetensors",
            reader=f"{_ARCHIVES}:from_safetensors",
        ),
        FormatEntry(
            "npz",
            "all of a set; can be imported again",
            "NumPy",
            f"{_WRITERS}:write_npz",
            file="set.npz",
            reader=f"{_ARCHIVES}:from_npz",
        ),
        FormatEntry(
            "imagefolder",
            "8-bit pictures, a folder per class",
            "torchvision",
            f"{_PICTURES}:write_imagefolder",
        ),
        FormatEntry(
            "hf", "a dataset repository of 8-bit pictures", "datasets", f"{_PICTURES}:write_hf"
        ),
        FormatEntry(
            "parquet",
            "a table of 8-bit pictures, classes and soft labels",
            "Apache Parquet, extra parquet",
            "distill.sets.exchange.export_parquet:write_parquet",
        ),
        FormatEntry(
            "ddranking",
            "what the benchmark of that name takes",
            "DD-Ranking",
            f"{_WRITERS}:write_ddranking",
        ),
        FormatEntry(
            "avalanche",
            "a replay memory for continual learning",
            "Avalanche",
            f"{_REPLAY}:write_avalanche",
        ),
        FormatEntry(
            "torch",
            "all of a set; can be imported again",
            "torch",
            f"{_WRITERS}:write_torch",
            file="set.pt",
            reader=f"{_ARCHIVES}:from_torch",
        ),
    ),
)

# An object is called as (projector, folder, **what it takes) -> Exported.
PROJECTOR_FORMATS: Registry[Entry] = Registry(
    "format",
    (
        Entry("peft", "adapters and head", "PEFT", f"{_PROJECTORS}:export_peft", takes=("base",)),
        Entry("merged", "an open_clip model", "open_clip", f"{_PROJECTORS}:export_merged"),
        Entry("onnx", "projector.onnx", "ONNX", f"{_PROJECTORS}:export_as_onnx"),
        Entry("torch-export", "projector.pt2", "torch", f"{_PROJECTORS}:export_as_program"),
        Entry(
            "compact",
            "this package's own folder in few bits",
            "Limbeck",
            f"{_PROJECTORS}:export_compact",
            takes=("storage",),
        ),
    ),
)


def importable() -> list[str]:
    """Names of all layouts: those of other programs, and those that `distill export` writes."""
    return [
        *LAYOUTS,
        *EXPERT_LAYOUTS,
        *HUB_LAYOUTS,
        *(name for name, entry in FORMATS.items() if entry.file and name not in LAYOUTS),
    ]
