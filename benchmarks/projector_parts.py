"""Components of benchmarks/projector_ablation.py: data, teachers, projectors and students."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

import projectors
from distill.data import fit_preprocess, load_data
from distill.recipes.build import build_network, build_views, generator_for, seed_of
from distill.store.tensors import load_tensors, save_tensors
from synth.augment import Augmentation
from synth.committee.relabel import labelled_online
from synth.committee.vote import Committee
from synth.formation import decode_images, decode_labels
from synth.losses import hard_logits
from synth.matching.start import class_labels, draw_real
from synth.selection import MosaicSettings, draw_mosaics, make_mosaics, realism_loss
from synth.training.batches import Batch, shuffled_batches
from synth.training.loop import TrainSettings, train
from synth.training.prediction import accuracy, predict

# rank, head, teacher and whether the images are refined, in the order of the paper's table.
VARIANTS: dict[str, tuple[bool, str, str, bool]] = {
    "probe": (False, "random", "committee", False),
    "weak": (False, "random", "weak", False),
    "lora": (True, "random", "weak", False),
    "text": (True, "text", "weak", False),
    "image": (True, "text", "weak", True),
    "full teacher": (True, "text", "committee", False),
}
STORED, HARD = "stored", "hard"


@dataclass
class Progress:
    """Finished numbers, in a file of one JSON line each."""

    path: Path

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        self.known: dict[str, Any] = {}
        for line in lines:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            self.known[row["key"]] = row["value"]

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """The value of a key, computed and stored if missing."""
        if key not in self.known:
            self.known[key] = make()
            with self.path.open("a") as file:
                file.write(json.dumps({"key": key, "value": self.known[key]}) + "\n")
            print(f"{key}: {json.dumps(self.known[key])[:200]}", flush=True)
        return self.known[key]


class Ablation:
    """The data, the teachers and the projectors; each is made when it is first needed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.progress = Progress(options.work / "progress.jsonl")
        self.data = load_data(
            options.data, size=options.size, channels=options.channels, subset=options.subset
        )
        self.preprocess = fit_preprocess(self.data.train.images)
        self.names = list(self.data.class_names)
        self.device = torch.device(options.device)
        self.views = build_views(options.views, one_per_batch=False) or Augmentation(())

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """Normalised images and labels."""
        part = getattr(self.data, name)
        return self.preprocess(part.images).to(self.device), part.labels.to(self.device)

    def network(self, spec: str, *keys: str | int) -> nn.Module:
        """A fresh network."""
        seed = seed_of(self.options.seed, *keys)
        data = self.data
        built = build_network(spec, data.channels, data.size, len(self.names), seed)
        return built.to(self.device)

    @cached_property
    def teachers(self) -> dict[str, Committee]:
        """The committee after its last epoch, and as it was early on ("weak")."""
        final, early = [], []
        for index, spec in enumerate(self.options.members):
            path = self.options.work / f"member-{index}.safetensors"
            saved = load_tensors(path)
            if saved is None:
                self._train_member(index, spec, path)
                saved = load_tensors(path)
            tensors = saved[0] if saved else {}
            for part, members in (("final", final), ("early", early)):
                network = self.network(spec, "member", index).eval().requires_grad_(False)
                prefix = f"{part}."
                network.load_state_dict(
                    {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
                )
                members.append(network)
        weights = torch.full((len(final),), 1 / len(final))
        return {
            "committee": Committee(tuple(final), weights),
            "weak": Committee(tuple(early), weights),
        }

    def _train_member(self, index: int, spec: str, path: Path) -> None:
        options, (images, labels) = self.options, self.split("train")
        network = self.network(spec, "member", index)
        generator = generator_for(options.seed, "member", index)
        soft = hard_logits(labels, len(self.names))
        settings = TrainSettings(options.teacher_epochs, 0.002, "adamw", weight_decay=0.01)

        def batches(epoch: int) -> Iterable[Batch]:
            return shuffled_batches(images, soft, 64, self.views, generator)

        tensors: dict[str, Tensor] = {}
        for epoch in train(network, batches, settings):
            if epoch.index == options.weak_epoch:
                tensors.update({f"early.{n}": t.clone() for n, t in network.state_dict().items()})
        tensors.update({f"final.{n}": t for n, t in network.state_dict().items()})
        held_images, held_labels = self.split("validation")
        value = accuracy(network, held_images, held_labels)
        save_tensors(path, tensors, {"accuracy": value})
        self.progress.get(f"member {index} {spec}", lambda: {"validation accuracy": value})

    def teacher_accuracy(self, name: str) -> float:
        """On the validation split."""
        images, labels = self.split("validation")
        votes = predict(self.teachers[name].vote, images)
        return float((votes.argmax(dim=1) == labels).float().mean())

    def _folder(self, variant: str) -> Path:
        """Variants that differ in the images alone share a projector."""
        adapted, head, teacher, _ = VARIANTS[variant]
        kind = "lora" if adapted else "probe"
        return self.options.work / f"projector-{kind}-{head}-{teacher}"

    def projector(self, variant: str) -> projectors.Projector:
        """The fitted projector of a variant, in the storage that is shipped."""
        folder = self._folder(variant)
        if not (folder / "projector.json").is_file():
            self._fit(variant, folder)
        return projectors.load(folder, classes=self.names).to(self.device)

    def _fit(self, variant: str, folder: Path) -> None:
        options = self.options
        adapted, head, teacher_name, _ = VARIANTS[variant]
        teacher = self.teachers[teacher_name].vote
        images, labels = self.split("train")
        held_images, held_labels = self.split("validation")
        projector = projectors.build_projector(
            projectors.load_tower(options.tower, seed=options.seed),
            self.names,
            projectors.Preprocessing(self.preprocess.mean, self.preprocess.std),
            adapter=projectors.AdapterSettings(options.rank if adapted else 0, seed=options.seed),
            head=projectors.HeadSettings(
                tuple(options.templates), head, options.trained, options.seed, options.head_rank
            ),
        ).to(self.device)
        settings = projectors.FitSettings(
            steps=options.steps,
            batch_size=64,
            lr=options.lr,
            ce_weight=options.ce_weight,
            loss=options.loss,
        )
        generator = generator_for(options.seed, "fit")
        state = projectors.FitState(projector, settings, generator)
        wanted = predict(self.teachers["committee"].vote, held_images).softmax(dim=1)
        best, rule = projectors.BestCheck(), projectors.EarlyStopping()

        def view(batch: Tensor, generator: Generator) -> Tensor:
            return self.views.sample(len(batch), self.data.size, generator).apply(batch)

        for step in projectors.fit_projector(state, images, teacher, labels, view=view):
            taken = step.index + 1
            if taken % max(options.steps // 10, 1) == 0 or taken == options.steps:
                check = projectors.measure_fidelity(projector, held_images, wanted, held_labels)
                best = best.after(rule, taken, check, state.weights())
        state.set_weights(best.weights or state.weights())
        storage = projectors.Storage(options.bits, options.coder)
        shipped = projectors.rounded(projector, storage)
        fidelity = projectors.measure_fidelity(shipped, held_images, wanted, held_labels)
        projectors.save(projector, folder, storage=storage, fidelity=fidelity)

    def describe(self, variant: str) -> dict[str, Any]:
        """A projector's bytes, its fidelity to the committee, and its own accuracy."""
        projector = self.projector(variant)
        folder = self._folder(variant)
        size = projectors.projector_bytes(folder)
        held_images, held_labels = self.split("validation")
        wanted = predict(self.teachers["committee"].vote, held_images).softmax(dim=1)
        held = projectors.measure_fidelity(projector, held_images, wanted, held_labels)
        images, labels = self.split("test")
        test = predict(projector.logits, images, 256).argmax(dim=1)
        own = float((test == labels).float().mean())
        return {
            "bytes": size.shipped,
            "external bytes": size.external,
            "validation": asdict(held),
            "test accuracy": own,
        }

    def sizes(self, variant: str) -> dict[str, int]:
        """Bytes of a projector's folder in every storage."""
        projector, sizes = self.projector(variant), {}
        for bits in (32, 8, 4):
            for coder in ("zstandard",) if bits == 32 else ("zstandard", "constriction"):
                with tempfile.TemporaryDirectory() as scratch:
                    folder = Path(scratch) / "projector"
                    projectors.save(projector, folder, storage=projectors.Storage(bits, coder))
                    name = "float32" if bits == 32 else f"int{bits} {coder}"
                    sizes[name] = projectors.projector_bytes(folder).shipped
        return sizes

    def images(self, ipc: int, seed: int, *, refined: bool) -> tuple[Tensor, Tensor]:
        """What students see: images [m, c, h, w] and hard labels [m]; made once, then read."""
        factor = self.options.factor if self.options.images == "mosaics" else 1
        path = self.options.work / f"images-{ipc}-{seed}{'-refined' if refined else ''}.safetensors"
        saved = load_tensors(path)
        if saved is None:
            stored = self._stored(ipc, seed, factor, refined=refined)
            save_tensors(path, {"images": stored}, {})
        else:
            stored = saved[0]["images"].to(self.device)
        hard = decode_labels(class_labels(len(self.names), ipc), factor)
        return decode_images(stored, factor), hard.to(self.device)

    def _stored(self, ipc: int, seed: int, factor: int, *, refined: bool) -> Tensor:
        stored = self._mosaics(ipc, seed) if factor > 1 else self._real(ipc, seed)
        if refined:
            space = projectors.Preprocessing(self.preprocess.mean, self.preprocess.std)
            tower = projectors.load_tower(self.options.tower, seed=self.options.seed)
            encode = projectors.image_encoder(tower, space).to(self.device)
            low, high = (
                self.preprocess(torch.full((1, self.data.channels, 1, 1), value)).to(self.device)
                for value in (0.0, 1.0)
            )
            steps = projectors.refine_images(
                stored,
                encode,
                projectors.RefineSettings(self.options.refine_steps),
                decode=lambda part: decode_images(part, factor),
                bounds=(low, high),
            )
            for _ in steps:
                pass
        return stored

    def _real(self, ipc: int, seed: int) -> Tensor:
        images, labels = self.split("train")
        generator = generator_for(self.options.seed, "real", ipc, seed)
        return images[draw_real(labels.cpu(), len(self.names), ipc, generator).to(self.device)]

    def _mosaics(self, ipc: int, seed: int) -> Tensor:
        options, split = self.options, self.data.train
        settings = MosaicSettings(options.candidates, 5, options.factor)
        committee, mosaics = self.teachers["committee"], []
        for label in range(len(self.names)):
            members = torch.nonzero(split.labels == label).flatten()
            generator = generator_for(options.seed, "mosaics", ipc, seed, label)
            draw = draw_mosaics(members, ipc, settings, self.data.size, generator)

            def loss(crops: Tensor, label: int = label) -> Tensor:
                return realism_loss(committee.vote(self.preprocess(crops)), label)

            mosaics.append(
                make_mosaics(split.images.to(self.device), draw, ipc, options.factor, loss)
            )
        return self.preprocess(torch.cat(mosaics))

    def student(self, row: str, spec: str, ipc: int, seed: int) -> float:
        """Test accuracy of one fresh student after its last epoch."""
        options = self.options
        refined = row in VARIANTS and VARIANTS[row][3]
        images, hard = self.images(ipc, seed, refined=refined)
        network = self.network(spec, "student", spec, seed)
        # The same order and the same views for every row of a seed.
        generator = generator_for(options.seed, "views", ipc, seed)
        settings = TrainSettings(
            options.epochs, options.student_lr, "adamw", weight_decay=0.01, temperature=4.0
        )
        ask: Callable[[Tensor], Tensor]
        if row == HARD:
            settings = TrainSettings(options.epochs, options.student_lr, "adamw", weight_decay=0.01)
            soft = hard_logits(hard, len(self.names))

            def batches(epoch: int) -> Iterable[Batch]:
                return shuffled_batches(images, soft, options.batch_size, self.views, generator)
        else:
            if row == STORED:
                vote = self.teachers["committee"].vote

                def ask(seen: Tensor) -> Tensor:
                    return vote(seen).half().float()
            else:
                ask = projectors.OnlineLabels(projectors.Deployed(self.projector(row)).logits)

            def batches(epoch: int) -> Iterable[Batch]:
                return labelled_online(images, ask, options.batch_size, self.views, generator)

        for _ in train(network, batches, settings):
            pass
        test_images, test_labels = self.split("test")
        return accuracy(network, test_images, test_labels)

    def stored_bytes(self, ipc: int) -> int:
        """What all stored labels of the students' views take: logits, view and id of each."""
        factor = self.options.factor if self.options.images == "mosaics" else 1
        count = ipc * len(self.names) * factor**2
        width = (
            self.views.sample(1, self.data.size, generator_for(0, "width")).to_tensor(1).shape[1]
        )
        id_bytes = 1 if count <= 1 << 8 else 2 if count <= 1 << 16 else 4
        return self.options.epochs * count * (2 * len(self.names) + 2 * width + id_bytes)
