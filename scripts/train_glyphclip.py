"""Train glyphclip, the CLIP base that is shipped in projectors/glyphclip/.

It learns from drawings of characters in the fonts of matplotlib's wheel, and from their names.
It never sees a class of `glyphs:K`, a face that `glyphs:K` validates or tests in, or an image of
handwriting. The validation part of `digits` and the held-out faces are only measured, to choose
settings; no test part is touched. From the root of the repository, on a CPU:

    .venv/bin/python scripts/train_glyphclip.py --work runs/glyphclip --out projectors/glyphclip

Started again with the same --work it resumes from its last checkpoint. The same seed, and the
tokenizer that lies in --out, give the same weights on the same machine and versions; the log of
the shipped ones is scripts/glyphclip/log.jsonl.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from glyphclip import model, pictures, prompts, tokens, views
from torch import Generator, Tensor
from torch.nn import functional

from distill.data import load_data
from distill.data.sources.characters import find_lookalikes

CLASSES, COPIES = 80, 3  # of a batch
LETTERS = 20  # ASCII characters of a batch, beside all ten digits
LR, WARMUP, DECAY = 2e-3, 100, 0.05
FALL = 0.4  # the share of the steps, at the end, in which the learning rate falls to 0
MEASURE_EVERY, SAVE_EVERY = 200, 50


def draw_batch(glyphs: pictures.Pictures, generator: Generator) -> tuple[list[int], Tensor]:
    """Choose classes, and COPIES drawings of each.

    Returns:
        The classes, and int64 [CLASSES * COPIES] drawings in the order of the classes.
    """
    ascii_ones = [k for k, group in enumerate(glyphs.characters) if group[0].isascii()]
    digits = [k for k in ascii_ones if glyphs.characters[k][0].isdecimal()]
    letters = [k for k in ascii_ones if k not in digits]
    others = range(len(ascii_ones), len(glyphs.characters))
    chosen = digits + _sample(letters, LETTERS, generator)
    chosen += _sample(others, CLASSES - len(chosen), generator)
    ends = torch.searchsorted(glyphs.classes, torch.tensor(chosen), right=True)
    starts = torch.searchsorted(glyphs.classes, torch.tensor(chosen))
    part = torch.rand(COPIES, len(chosen), generator=generator)
    drawings = starts + (part * (ends - starts)).long()
    return chosen, drawings.T.flatten()


def train_step(
    clip: torch.nn.Module, tokenizer: Any, glyphs: pictures.Pictures, generator: Generator
) -> Tensor:
    """The loss of one batch."""
    chosen, drawings = draw_batch(glyphs, generator)
    texts = [prompts.draw_prompt(glyphs.characters[k], generator) for k in chosen]
    drawn = views.draw_views(len(drawings), generator)
    images = views.apply_views(
        glyphs.drawn[drawings], glyphs.boxes[drawings], drawn, model.IMAGE_SIZE, generator
    )
    # Half the time on processors with bfloat16; the features are compared in float32.
    with torch.autocast("cpu", torch.bfloat16):
        seen = model.encode_images(clip, images)
        read = clip.encode_text(encode(tokenizer, texts))
    scale = clip.logit_scale.exp().clamp(max=100)
    read = functional.normalize(read.float(), dim=-1)
    scores = scale * functional.normalize(seen.float(), dim=-1) @ read.T
    return model.contrastive_loss(scores, torch.arange(CLASSES).repeat_interleave(COPIES))


def encode(tokenizer: Any, texts: list[str]) -> Tensor:
    """Tokens [n, CONTEXT] of texts."""
    return torch.tensor([encoding.ids for encoding in tokenizer.encode_batch(texts)])


@torch.no_grad()
def measure(clip: torch.nn.Module, tokenizer: Any, held_out: pictures.Pictures) -> dict[str, float]:
    """Accuracy on the validation part of `digits`, and on held-out faces among all classes."""
    clip.eval()
    data = load_data("digits")
    images = functional.interpolate(
        data.validation.images, (model.IMAGE_SIZE,) * 2, mode="bilinear", align_corners=False
    )
    names = [f"a photo of a {name}" for name in data.class_names]
    digits = _classify(clip, tokenizer, images, names)
    some = torch.arange(0, len(held_out.drawn), max(1, len(held_out.drawn) // 1000))
    plain = views.plain_views(len(some))
    drawn, boxes = held_out.drawn[some], held_out.boxes[some]
    shown = views.apply_views(drawn, boxes, plain, model.IMAGE_SIZE, Generator())
    names = [prompts.names_of(group[0])[0] for group in held_out.characters]
    faces = _classify(clip, tokenizer, shown, names)
    clip.train()
    return {
        "digits_validation": _share(digits == data.validation.labels),
        "held_out_faces": _share(faces == held_out.classes[some]),
    }


def train(
    glyphs: pictures.Pictures,
    held_out: pictures.Pictures,
    tokenizer: Any,
    work: Path,
    steps: int,
    seed: int,
) -> torch.nn.Module:
    """Train for `steps` steps, from the last checkpoint in `work` if there is one."""
    clip = model.build(tokenizer.get_vocab_size(), seed).train()
    decayed = [p for p in clip.parameters() if p.ndim > 1]
    others = [p for p in clip.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.98))
    step, checkpoint = 0, work / "checkpoint.pt"
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        clip.load_state_dict(state["clip"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    _log(work, {"classes": len(glyphs.characters), "drawings": len(glyphs.drawn), "step": step})
    started, total = time.monotonic(), 0.0
    while step < steps:
        for group in optimiser.param_groups:
            group["lr"] = LR * _schedule(step, steps)
        # Each step has a generator of its own, so that a resumed training draws the same.
        loss = train_step(clip, tokenizer, glyphs, Generator().manual_seed(seed * 10**6 + step))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
        optimiser.step()
        step, total = step + 1, total + loss.item()
        if step % SAVE_EVERY == 0 or step == steps:
            state = {"clip": clip.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
            torch.save(state, work / "checkpoint.tmp")
            (work / "checkpoint.tmp").replace(checkpoint)
            row = {"step": step, "loss": round(total / (step % SAVE_EVERY or SAVE_EVERY), 4)}
            if step % MEASURE_EVERY == 0 or step == steps:
                row |= measure(clip, tokenizer, held_out)
            _log(work, row | {"seconds": round(time.monotonic() - started)})
            total = 0.0
    return clip.eval()


def open_tokenizer(folder: Path, glyphs: pictures.Pictures) -> Any:
    """The tokenizer in a folder, made there first if there is none.

    One that is there stays: the library breaks ties among pairs differently in each process.
    """
    if not (folder / tokens.FILE).is_file():
        every = [c for group in glyphs.characters for c in group]
        names = [name for character in every for name in prompts.names_of(character)]
        tokens.save_tokenizer(tokens.train_tokenizer(names + list(prompts.TEMPLATES) * 20), folder)
    return tokens.load_tokenizer(folder)


def main() -> None:
    """Train and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="checkpoint and log go here")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the base")
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    characters = pictures.base_characters(find_lookalikes())
    glyphs = pictures.draw_training(characters)
    held_out = pictures.draw_held_out(glyphs.characters)
    tokenizer = open_tokenizer(arguments.out, glyphs)
    clip = train(glyphs, held_out, tokenizer, arguments.work, arguments.steps, arguments.seed)
    model.save(clip, tokenizer.get_vocab_size(), arguments.out)
    groups = [*glyphs.characters, pictures.MATHEMATICAL]
    seen = sorted(character for group in groups for character in group)
    text = "\n".join(f"{ord(character):04X}" for character in seen)
    (arguments.out / "characters.txt").write_text(text + "\n", "utf-8")


def _classify(clip: torch.nn.Module, tokenizer: Any, images: Tensor, names: list[str]) -> Tensor:
    """The name, by index, that is nearest to each image."""
    parts = [names[start : start + 500] for start in range(0, len(names), 500)]
    read = torch.cat([clip.encode_text(encode(tokenizer, part), normalize=True) for part in parts])
    return (model.encode_images(clip, images) @ read.T).argmax(dim=1)


def _sample(of: Any, count: int, generator: Generator) -> list[int]:
    return [of[int(i)] for i in torch.randperm(len(of), generator=generator)[:count]]


def _schedule(step: int, steps: int) -> float:
    # Constant for long: how many steps there will be matters only when the fall begins.
    return min((step + 1) / WARMUP, 1.0, (steps - step) / (FALL * steps))


def _share(right: Tensor) -> float:
    return round(float(right.float().mean()), 4)


def _log(work: Path, row: dict[str, Any]) -> None:
    with (work / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
