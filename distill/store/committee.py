"""committee.h5: the teachers, each with its state, spec and held-out accuracy.

/members/0000 holds one dataset per entry of the network's state; its attributes are the spec,
the entries' order, the validation accuracy and the epoch whose state is kept; of a program of
torch.export, the digest of its file too. Root attributes: the data's digest and classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.store.hdf5 import create_h5, get_json, open_h5, put, put_json, read_array

COMMITTEE_KIND = "committee"


@dataclass(frozen=True)
class Member:
    """One teacher.

    Attributes:
        spec: its network spec.
        accuracy: on the validation split, a fraction.
        state: its parameters and buffers by name.
        epoch: training epoch, from 1, after which the state was kept; 0 if pretrained or unknown.
        program: digest of the file of a program, which computes more than its state says; "" of
            any other network, or where it was not noted.
    """

    spec: str
    accuracy: float
    state: dict[str, Tensor]
    epoch: int = 0
    program: str = ""


def write_committee(
    path: Path, members: Iterable[Member], data: str, class_names: tuple[str, ...]
) -> None:
    """Write committee.h5 atomically."""
    with create_h5(path, COMMITTEE_KIND) as file:
        file.attrs["data"] = data
        put_json(file, "class_names", list(class_names))
        group = file.create_group("members")
        for index, member in enumerate(members):
            entry = group.create_group(f"{index:04d}")
            entry.attrs["spec"] = member.spec
            entry.attrs["accuracy"] = member.accuracy
            entry.attrs["epoch"] = member.epoch
            if member.program:
                entry.attrs["program"] = member.program
            put_json(entry, "state", list(member.state))
            for name, tensor in member.state.items():
                put(entry, name, np.asarray(tensor.cpu().numpy()), None)


def read_committee(path: Path) -> tuple[list[Member], str, list[str]]:
    """Members, the digest of the data that they were trained on, and their class names."""
    with open_h5(path, COMMITTEE_KIND) as file:
        members = [
            Member(
                str(entry.attrs["spec"]),
                float(entry.attrs["accuracy"]),
                {
                    name: torch.as_tensor(read_array(entry, name))
                    for name in get_json(entry, "state")
                },
                int(entry.attrs.get("epoch", 0)),
                str(entry.attrs.get("program", "")),
            )
            for entry in (file["members"][name] for name in sorted(file["members"]))
        ]
        return members, str(file.attrs["data"]), get_json(file, "class_names")
