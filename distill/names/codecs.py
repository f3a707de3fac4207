"""The label codecs by name. Imports no torch."""

from __future__ import annotations

from functools import partial

from distill.names.entries import CodecEntry, Registry

CODECS: Registry[CodecEntry] = Registry(
    "codec",
    (
        CodecEntry("hard", "the class of each image", "the set itself"),
        CodecEntry("learned", "one soft label per image, float32 logits", "DATM, Guo et al. 2024"),
        CodecEntry(
            "full-fp16",
            "voted logits of every augmented view in half precision",
            "FKD, CV-DD",
            role="name",
            meaning="dense:dtype=float16",
        ),
        CodecEntry(
            "seed",
            "views drawn again from a seed instead of stored; goes before another part",
            "Limbeck",
            role="views",
        ),
        CodecEntry(
            "pruned",
            "a part of the label epochs, drawn from over and over; goes before another part",
            "LPLD, Xiao and He 2024",
            "projectors.codecs.pruned:Pruned",
            role="pool",
            options={"ratio": 0.9, "unit": "epoch", "seed": 0},
        ),
        CodecEntry(
            "dense",
            "every logit as float16, bfloat16 or int8",
            "textbook",
            "projectors.codecs.dense:Dense",
            role="labels",
            options={"dtype": "float16"},
        ),
        CodecEntry(
            "topk",
            "the k largest entries of each label; tail plain, marginal or renormalised",
            "FKD, Shen and Xing 2022",
            "projectors.codecs.topk:TopK",
            role="labels",
            options={"k": 5, "tail": "marginal"},
        ),
        CodecEntry(
            "sampled-topk",
            "the largest entries as they are, and unbiased samples of the others",
            "sparse logit sampling",
            "projectors.codecs.sampled:SampledTopK",
            role="labels",
            options={"kept": 3, "draws": 3, "seed": 0},
        ),
        CodecEntry(
            "low-rank",
            "the logits as a product of two thin matrices",
            "Eckart and Young 1936",
            "projectors.codecs.lowrank:LowRank",
            role="labels",
            options={"rank": 4},
        ),
        CodecEntry(
            "quantised",
            "logits on a uniform grid, entropy-coded by lzma or zlib",
            "textbook",
            "projectors.codecs.quantised:Quantised",
            role="labels",
            options={"step": 0.5, "coder": "lzma"},
        ),
        CodecEntry(
            "roots",
            "square roots of probabilities on a grid, coded in the context of earlier epochs",
            "Limbeck",
            "projectors.codecs.roots:Roots",
            role="labels",
            options={"step": 0.1},
        ),
        CodecEntry(
            "product",
            "a product quantiser: words of codebooks learned on the labels, chosen by KL",
            "Jegou et al. 2011; Ge et al. 2013",
            "projectors.codecs.product:ProductQuantised",
            role="labels",
            options={"parts": 16, "words": 16, "rank": 64, "seed": 0},
        ),
        CodecEntry(
            "two-scalars",
            "top class, its log-odds and the sharpness of its class's mean shape",
            "after NRR-DD, Tran et al. 2025",
            "projectors.codecs.twoscalar:TwoScalars",
            role="labels",
        ),
        CodecEntry(
            "top1",
            "the voted class of every view",
            "FKD",
            "projectors.codecs.hard:Hard",
            role="labels",
        ),
        CodecEntry(
            "lpld",
            "a pool of whole batches in float16",
            "Xiao and He 2024",
            role="name",
            options={"ratio": 0.975},
            meaning="pruned:ratio={ratio}:unit=batch-to-epoch+dense:dtype=float16",
        ),
        CodecEntry(
            "lpqld",
            "a pool of labels, by epochs or batch-to-epoch, the k largest entries of each",
            "Xiao and He 2026",
            role="name",
            options={"ratio": 0.9, "k": 5, "tail": "marginal", "unit": "epoch"},
            meaning="pruned:ratio={ratio}:unit={unit}+topk:k={k}:tail={tail}",
        ),
        CodecEntry(
            "teacher",
            "no stored label: the committee in 2 to 8 bits a weight labels every view; with labels "
            "after it, those of the share where it is most wrong",
            "Limbeck",
            role="network",
            options={"bits": 8, "residual": 0.1},
        ),
        CodecEntry(
            "projector",
            "no stored label: an adapted CLIP tower labels every view; with labels after it, those "
            "of the share where it is most wrong",
            "HeLlO",
            role="network",
            options={"residual": 0.1},
        ),
    ),
    "limbeck.codecs",
    partial(CodecEntry, role="labels"),
)
