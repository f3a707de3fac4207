"""The tokenizer of glyphclip: byte-pair encoding of lower-case ASCII with a small table."""

import json
import string
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

FILE = "tokenizer.json"
CONTEXT = 24
_TABLE = 800


def train_tokenizer(lines: Iterable[str]) -> Tokenizer:
    """Train a tokenizer on lines of text.

    Accents are dropped, other scripts become one unknown token, each digit is a token.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    signs = string.ascii_lowercase + string.digits + string.punctuation
    trainer = trainers.BpeTrainer(
        vocab_size=_TABLE,
        special_tokens=["<pad>", "<unk>", "<start>"],
        initial_alphabet=list(signs),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    # Every sign also as a word of its own, or a lone rare one would be unknown.
    tokenizer.train_from_iterator([*lines, " ".join(signs)], trainer)
    # open_clip reads a text's feature where the highest token stands: the end, so it comes last.
    tokenizer.add_special_tokens(["<end>"])
    ends = [(mark, tokenizer.token_to_id(mark)) for mark in ("<start>", "<end>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=ends
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the two files that `transformers.AutoTokenizer` reads."""
    document = json.loads(tokenizer.to_str())
    compact = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    (folder / FILE).write_text(compact + "\n", "utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "bos_token": "<start>",
        "eos_token": "<end>",
    }
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / "tokenizer_config.json").write_text(text + "\n", "utf-8")


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder; every text becomes CONTEXT tokens."""
    tokenizer = Tokenizer.from_file(str(folder / FILE))
    tokenizer.enable_padding(length=CONTEXT, pad_id=0, pad_token="<pad>")
    tokenizer.enable_truncation(CONTEXT)
    return tokenizer
