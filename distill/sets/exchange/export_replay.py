"""Writer of a set as the replay memory of a continual learner."""

from __future__ import annotations

from pathlib import Path

from distill.sets.dataset import DistilledSet
from distill.sets.exchange.arrays import Archive
from distill.sets.exchange.export_formats import Written, save_torch
from synth.images import gather

_TENSORS, _PROGRAM = "memory.pt", "replay_memory.py"

# Runs where Avalanche is and this package is not.
_BUFFER = '''\
"""A distilled set as a replay memory of Avalanche 0.6, and as a plain Dataset for torch alone.

    from avalanche.training.plugins import ReplayPlugin
    from replay_memory import DistilledBuffer

    buffer = DistilledBuffer(transform=Normalize(mean, std))  # as your benchmark normalises images
    plugin = ReplayPlugin(mem_size=buffer.max_size, storage_policy=buffer)
    strategy = Naive(model=model, optimizer=optimizer, plugins=[plugin], ...)

After an experience the buffer takes up the images of its classes, and nothing of its data.
"""

from pathlib import Path

import torch
from torch.utils.data import Dataset

try:
    from avalanche.benchmarks.utils import AvalancheDataset, ConstantSequence, DataAttribute
    from avalanche.training.storage_policy import ExemplarsBuffer
except ImportError:  # memory() and Memory need torch alone
    ExemplarsBuffer = object


def memory():
    """images [n, c, h, w] in [0, 1], classes [n], soft [n, k] (probabilities), class_names."""
    return torch.load(Path(__file__).with_name("memory.pt"), weights_only=True)


class Memory(Dataset):
    """(image, class) of some classes, all for None; `transform` is called with each image."""

    def __init__(self, classes=None, transform=None):
        found = memory()
        numbers = found["classes"]
        kept = torch.ones_like(numbers, dtype=torch.bool)
        if classes is not None:
            kept = torch.isin(numbers, torch.tensor(sorted(classes), dtype=torch.int64))
        self.images, self.numbers = found["images"][kept], numbers[kept]
        self.targets = self.numbers.tolist()
        self.transform = transform

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        # The class is a tensor, which batches together with tensors and with plain numbers.
        image, number = self.images[index], self.numbers[index]
        return image if self.transform is None else self.transform(image), number


class DistilledBuffer(ExemplarsBuffer):
    """The images of the classes that were met; `max_size` is that of the whole set."""

    def __init__(self, transform=None):
        if ExemplarsBuffer is object:
            raise ImportError("DistilledBuffer needs avalanche: pip install avalanche-lib")
        super().__init__(len(memory()["classes"]))
        self.transform = transform
        self.classes = set()

    def post_adapt(self, agent, exp):
        """Take up the classes of an experience."""
        self.classes |= set(exp.classes_in_this_experience)
        data = Memory(self.classes, self.transform)
        attributes = [DataAttribute(data.targets, "targets")]
        if hasattr(exp.dataset, "targets_task_labels"):
            tasks = ConstantSequence(0, len(data))
            attributes.append(DataAttribute(tasks, "targets_task_labels", use_in_getitem=True))
        self.buffer = AvalancheDataset([data], data_attributes=attributes)

    def resize(self, strategy, new_size):
        """The size of a distilled set does not change."""
        if new_size < self.max_size:
            raise ValueError(f"the set has {self.max_size} images; export a smaller one")
'''


def write_avalanche(folder: Path, data: DistilledSet, archive: Archive) -> Written:
    """Pixels, classes and soft labels as tensors, and a program that makes a replay buffer of them.

    Images are those that students see, in the space of pixels, so that a benchmark's own
    normalisation is applied to real and replayed images alike. They are not clipped: distilled
    ones may leave [0, 1].
    """
    pixels = data.preprocess.inverse(gather(data.images)).float().contiguous()
    save_torch(
        {
            "images": pixels,
            "classes": data.hard.long(),
            "soft": data.labels.float(),
            "class_names": list(data.manifest["class_names"]),
        },
        folder / _TENSORS,
    )
    (folder / _PROGRAM).write_text(_BUFFER, encoding="utf-8")
    return Written(
        {
            _TENSORS: "images (pixels in [0, 1], float32, some beyond it), classes, soft labels "
            "(probabilities), class_names",
            _PROGRAM: "DistilledBuffer for ReplayPlugin of Avalanche 0.6, and Memory, a Dataset "
            "that needs torch alone",
        },
        "from replay_memory import Memory\n"
        "data = Memory()  # of some classes: Memory([0, 1], transform=...)\n"
        "image, label = data[0]",
    )
