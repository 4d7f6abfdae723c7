"""Small SentencePiece models and the ids that SentencePiece itself gives for texts: tests/goldens/pieces.

The models lie in the repository, because training is not the same on every processor; one that is missing is trained
anew, on the text of `kl_text.txt`. Each differs from the others in what a reader can get wrong.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import sentencepiece
from tokenizer import CASES

# What SentencePiece calls a rule: characters -> characters, as hexadecimal numbers.
RULES = "FF21\t41\nA0\t20\n9\t20\nA\t20\n3000\t20\nFB01\t66 69\n65 301\tE9\n2126\t3A9\nAD\t\n"
MODELS: dict[str, dict[str, object]] = {
    "bpe-llama": {
        "model_type": "bpe",
        "byte_fallback": True,
        "remove_extra_whitespaces": False,
        "normalization_rule_name": "identity",
        "split_digits": True,
    },
    "bpe-gemma": {
        "model_type": "bpe",
        "byte_fallback": True,
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
        "normalization_rule_name": "identity",
        "user_defined_symbols": ["<start_of_turn>", "<b>", "</b>", "->"],
        "pad_id": 0,
        "eos_id": 1,
        "bos_id": 2,
        "unk_id": 3,
    },
    "unigram-t5": {
        "model_type": "unigram",
        "rules": True,
        "user_defined_symbols": ["<extra_0>", "=="],
        "pad_id": 0,
        "eos_id": 1,
        "unk_id": 2,
        "bos_id": -1,
    },
    "unigram-bytes": {
        "model_type": "unigram",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    },
}
# What has a meaning beyond text there: tokens in the text, which SentencePiece does not look for and readers do.
TEXTS = (
    *(text for text in CASES if "<|" not in text),
    "",
    " ",
    "   ",
    "\u3000\u3000x",
    "\ufb01n\u00adal ＡＢＣ \u2126",
)


def write_pieces(inputs: Path, folder: Path) -> None:
    """Writes the models of `inputs`, and the ids of TEXTS by each."""
    folder.mkdir(parents=True, exist_ok=True)
    golden = {}
    for name, settings in MODELS.items():
        known = inputs / f"{name}.model"
        content = known.read_bytes() if known.is_file() else _train(inputs.parent / "kl_text.txt", settings)
        (folder / known.name).write_bytes(content)
        processor = sentencepiece.SentencePieceProcessor(model_proto=content)
        golden[name] = {
            "ids": processor.encode(list(TEXTS)),
            "texts": [processor.decode(processor.encode(t)) for t in TEXTS],
        }
    text = json.dumps({"texts": TEXTS, "models": golden}, ensure_ascii=False, separators=(",", ":"))
    (folder / "ids.json").write_text(text + "\n", encoding="utf-8")


def _train(corpus: Path, settings: dict[str, object]) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        options = {key: value for key, value in settings.items() if key != "rules"}
        if settings.get("rules"):
            rules = Path(scratch) / "rules.tsv"
            rules.write_text(RULES)
            options["normalization_rule_tsv"] = str(rules)
        text = Path(scratch) / "text.txt"
        text.write_text("\n".join((corpus.read_text(encoding="utf-8"), *CASES[:8])), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(text),
            model_prefix=f"{scratch}/model",
            vocab_size=700,
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
            character_coverage=0.999,
            **options,
        )
        return (Path(scratch) / "model.model").read_bytes()


if __name__ == "__main__":
    goldens = Path(__file__).resolve().parents[2] / "tests" / "goldens" / "pieces"
    write_pieces(goldens, goldens)
