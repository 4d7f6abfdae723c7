"""Writes tests/goldens/tokenizer-smollm2.json: the token ids that llama.cpp gives for the texts below.

    python -m venv venv && venv/bin/pip install llama-cpp-python==0.3.36 gguf
    venv/bin/python -P scripts/goldens/tokenizer.py path/to/SmolLM2-135M-Instruct.Q4_1.gguf

The golden holds: the ids with the file's own tokenizer, case by case; the ids of all texts under every
pre-tokenizer that Cupola knows by name, with the same vocabulary and a token for every two bytes that meet in the
texts, so that each cut shows; and the ids with a SentencePiece and a WordPiece vocabulary. llama.cpp
is the judge because it gives the names in GGUF files their meaning.

This file also makes the vocabularies for the other two, and the test makes the same ones with it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import tempfile
import unicodedata
from pathlib import Path

import gguf

GOLDEN = Path(__file__).parents[2] / "tests" / "goldens" / "tokenizer-smollm2.json"

CASES = (
    "The quick brown fox jumps over the lazy dog.",
    "0 1 12 123 1234 12345678901234567890 3.14159 1,000,000.00 -7e-12 0xDEADBEEF 2024-02-29T23:59:60Z 50% ½ ²³ Ⅻ",
    "١٢٣٤٥ ०१२३ ４５６ 一二三 v1.2.3-rc4 a1b2c3 1st 2nd 3rd 10x",
    " leading, trailing ",
    "a  b   c    d     e\tf\t\tg \t h\n\ni\r\nj\r\r\nk \n \n  l\n\n\n\n   m",
    "\u00a0no-break\u2003em\u3000ideographic\u200bzero-width\u2028line\u0085next",
    "I'm you're he'd they'll we've it's don't I'M YOU'RE HE'D 'tis rock'n'roll d'accord l'été 's 't",
    'def f(x: int) -> dict[str, int]:\n    """Doc."""\n    return {"a": x**2 + 1, "b": x // 3}  # note\n\n\tif x:\n',
    "#include <vector>\nint main(int argc, char **argv) { return std::vector<int>{1,2,3}.size() && !argc || ~0; }",
    "for (let i = 0; i < 10; ++i) { console.log(`${i}: ${a?.b ?? 'none'}`); } // TODO(me): [x] {y} <z/> @w $v ^u |t|",
    "SELECT * FROM t WHERE a_b >= 'c' AND d LIKE '%e%';\n$ ls -la | grep '^d' > /tmp/out.txt 2>&1",
    "https://example.org/a-b_c?d=e&f=%20#g user.name+tag@example.co.uk C:\\Users\\me\\file.txt",
    "CamelCaseWord snake_case_word SCREAMING_CASE kebab-case-word XMLHttpRequest iPhone McDonald",
    "naïve café Ångström œuvre Straße ÉCOLE e\u0301cole İstanbul ǅungla ﬁne ſharp",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. ΑΒΓ",
    "敏捷的棕色狐狸跳过了懒狗。你好，世界！「引号」『書名』、顿号…",
    "いろはにほへと ちりぬるを カタカナ ﾊﾝｶｸ 漢字かな交じり文です。",
    "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다. ㄱㄴㄷ",
    "نص عربي مع تَشْكِيل وأرقام ٤٥٦ و English معًا، أليس كذلك؟",
    "דג סקרן שט בים מאוכזב ולפתע מצא חברה. שָׁלוֹם",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "ნაშთიდან ქართული Հայերեն አማርኛ தமிழ் বাংলা ភាសាខ្មែរ မြန်မာ",
    "🙂 👩‍👩‍👧‍👦 🇩🇪 ❤️ 👍🏽 → ∀x∈ℝ: ⌈x⌉ ≥ x ± ∞ ∑∏∫ €100 £5 ©® „quote“ «guillemets» — – ·",
    "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\n<b>Hi</b><|im_end|>\n<|im_start|>assistant\n",
    "<|endoftext|> <|im_start|><|im_end|> <|not_a_token|> <repo_name>x<file_sep> <empty_output>",
    "====== ------ ______ ...... !!!!!! ?!?! *** ### $$$ +=+= <<<>>> (((())))",
    f"x{' ' * 37}of{' ' * 12} spaces 1234 12345 123456 1234567 v12345.6789012 <sentinel:12> IMGIMGABCZ \u3131\u3105",
)
# Rules whose tokens are written as text, with SentencePiece's mark for spaces, and not in GPT-2's alphabet of bytes.
TEXT_RULES = ("gemma4", "granite-embed-multi-311m", "sarvam-moe")


Metadata = dict[str, object]
Keys = gguf.Keys.Tokenizer


def renamed(metadata: Metadata, rule: str) -> Metadata:
    """The metadata with another pre-tokenizer, a token for every pair of bytes, and no word on whether to add a BOS."""
    if rule in TEXT_RULES:
        return _merged_pieces(metadata, rule)
    letters = _bytes_to_letters()
    texts = [[letters[byte] for byte in text.encode()] for text in CASES]
    tokens, merges = list(metadata[Keys.LIST]), list(metadata[Keys.MERGES])  # type: ignore[call-overload]
    known = set(tokens)
    met = dict.fromkeys(pair for text in texts for pair in itertools.pairwise(text))
    pairs = [(left, right) for left, right in met if left + right not in known]
    changed = {key: value for key, value in metadata.items() if key != Keys.ADD_BOS}
    changed[Keys.PRE] = rule
    changed[Keys.LIST] = tokens + [left + right for left, right in pairs]
    changed[Keys.MERGES] = merges + [f"{left} {right}" for left, right in pairs]
    changed[Keys.TOKEN_TYPE] = [*map(int, metadata[Keys.TOKEN_TYPE]), *[1] * len(pairs)]  # type: ignore[call-overload]
    return changed


def pieces(metadata: Metadata) -> Metadata:
    """The metadata with its tokens as SentencePiece pieces, the early ones with the higher scores."""
    letters = {letter: byte for byte, letter in _bytes_to_letters().items()}
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL, *[gguf.TokenType.BYTE] * 256]
    for token in metadata[Keys.LIST]:  # type: ignore[attr-defined]
        if all(letter in letters for letter in token):
            text = bytes(letters[letter] for letter in token).decode(errors="ignore").replace(" ", "\u2581")
            if text and "\n" not in text:
                texts.append(text)
    alphabet = {text for text in texts if len(text) == 1}  # a trained vocabulary has all letters of its pieces
    texts = [text for i, text in enumerate(dict.fromkeys(texts)) if i < len(kinds) or alphabet.issuperset(text)]
    changed = {key: value for key, value in metadata.items() if not key.startswith("tokenizer.")}
    changed[Keys.MODEL] = "llama"
    changed[Keys.LIST] = texts
    changed[Keys.TOKEN_TYPE] = [*map(int, kinds), *[1] * (len(texts) - len(kinds))]
    changed[Keys.SCORES] = [float(-i) for i in range(len(texts))]
    return changed


def words(metadata: Metadata) -> Metadata:
    """A WordPiece vocabulary as llama.cpp's converter writes BERT's: a mark where a word begins, and none behind it."""
    texts = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted({letter for text in CASES for letter in unicodedata.normalize("NFD", text.lower())})
    letters = [letter for letter in letters if not letter.isspace()]
    found = [word for text in CASES for word in re.findall("[a-z]+", text.lower())]
    parts = [letter for letter in letters if letter not in "\u0e33"]
    starts = dict.fromkeys([*parts, *(word[:cut] for word in found for cut in (2, 4))])
    ends = dict.fromkeys([*parts[::2], *(word[cut:] for word in found for cut in (2, 4) if word[cut:])])
    texts += [*(f"\u2581{start}" for start in starts), *ends]
    changed = {key: value for key, value in metadata.items() if not key.startswith("tokenizer.")}
    changed |= {Keys.MODEL: "bert", Keys.LIST: texts, Keys.BOS_ID: 2, Keys.SEP_ID: 3, Keys.UNK_ID: 1, Keys.PAD_ID: 0}
    return changed | {Keys.TOKEN_TYPE: [*[int(gguf.TokenType.CONTROL)] * 5, *[1] * (len(texts) - 5)]}


def _merged_pieces(metadata: Metadata, rule: str) -> Metadata:
    """`pieces` with every way to put one together as a merge, the early ones first."""
    changed = pieces(metadata)
    tokens = {text: i for i, text in enumerate(changed[Keys.LIST])}  # type: ignore[var-annotated,arg-type]
    merges = [
        f"{text[:at]} {text[at:]}"
        for text, i in tokens.items()
        if i > 258
        for at in range(1, len(text))
        if tokens.get(text[:at], 0) > 258 and tokens.get(text[at:], 0) > 258
    ]
    del changed[Keys.SCORES]
    return changed | {Keys.MODEL: "gpt2", Keys.PRE: rule, Keys.MERGES: merges, Keys.BOS_ID: 1, Keys.EOS_ID: 2}


def _write(metadata: Metadata, path: Path) -> None:
    """A GGUF file without tensors; llama.cpp reads the vocabulary of such a file."""
    writer = gguf.GGUFWriter(path, str(metadata["general.architecture"]))
    for key, value in metadata.items():
        if key == "general.architecture":
            continue
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_string(key, str(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def _bytes_to_letters() -> dict[int, str]:
    """GPT-2's alphabet: printable bytes stand for themselves, the others for letters from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _tokenize(path: Path, texts: tuple[str, ...]) -> list[list[int]]:
    from llama_cpp import Llama  # here, so that the test can import this file without llama.cpp

    llama = Llama(str(path), vocab_only=True, verbose=False)
    return [llama.tokenize(text.encode(), add_bos=True, special=True) for text in texts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the GGUF file")
    parser.add_argument("--rules", nargs="*", default=None, help="more pre-tokenizers than those in the golden")
    arguments = parser.parse_args()
    import llama_cpp

    fields = gguf.GGUFReader(arguments.model).fields
    metadata = {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")}
    known = {name for entry in json.loads(GOLDEN.read_text())["rules"] for name in entry["names"]}
    rules = sorted(known.union(arguments.rules or ()))
    golden: dict[str, object] = {
        "made": f"by scripts/goldens/tokenizer.py with llama-cpp-python {llama_cpp.__version__}",
        "model": arguments.model.name,
        "cases": [
            {"text": text, "ids": ids} for text, ids in zip(CASES, _tokenize(arguments.model, CASES), strict=True)
        ],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.gguf"
        results: dict[str, list[str]] = {}  # ids as JSON -> the rules that give them
        for rule in rules:
            _write(renamed(metadata, rule), path)
            results.setdefault(json.dumps(_tokenize(path, CASES)), []).append(rule)
        golden["rules"] = [{"names": names, "ids": json.loads(ids)} for ids, names in results.items()]
        _write(pieces(metadata), path)
        golden["pieces"] = _tokenize(path, CASES)
        _write(words(metadata), path)
        golden["words"] = _tokenize(path, CASES)
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    GOLDEN.write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
