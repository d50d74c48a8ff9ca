#!/usr/bin/env python3
"""Records token_cases.json: what the `tokenizers` library makes of texts, with tokenizer.json here and with parts of it replaced.

  record_tokens.py        needs tokenizers (0.23.3 when the file was last made)
"""
import json
from pathlib import Path

from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
BASE = json.loads((HERE / "tokenizer.json").read_text(encoding="utf-8"))
ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
WORD = r"[^\r\n\p{L}\p{N}]?"
GPT4O = (f"{WORD}{UPPER}*{LOWER}+{ENDINGS}?|{WORD}{UPPER}+{LOWER}*{ENDINGS}?" + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""]


def byte_level(**settings):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False, **settings}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


def added(i, content, **settings):
    return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False, **settings}


FLAGS = [added(320, "<think>"), added(321, "e\u0301x", normalized=True), added(322, "word", single_word=True), added(323, "<l>", lstrip=True),
         added(324, "<r>", rstrip=True, normalized=True), added(325, "<b>", lstrip=True, rstrip=True, special=True), added(326, "<thinking> x"), added(327, " a ")]
PIECES = {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}, "</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}
TEMPLATE = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "</s>", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": PIECES}
# Name -> what replaces the members of tokenizer.json.
VARIANTS = {
    "as it is": {},
    "prefix space": {"pre_tokenizer": byte_level(add_prefix_space=True, use_regex=True), "added_tokens": BASE["added_tokens"] + FLAGS},
    "llama 3": {"pre_tokenizer": sequence(split(LLAMA3), byte_level()), "post_processor": {"type": "Sequence", "processors": [byte_level(), TEMPLATE]}},
    "qwen": {"normalizer": {"type": "NFC"}, "pre_tokenizer": sequence(split(LLAMA3.replace("{1,3}", "")), byte_level()), "added_tokens": BASE["added_tokens"] + FLAGS},
    "gpt-4o": {"pre_tokenizer": sequence(split(GPT4O), byte_level())},
    "deepseek": {"normalizer": {"type": "Sequence", "normalizers": []}, "pre_tokenizer": sequence(*map(split, DEEPSEEK), byte_level())},
    "smollm": {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": True}, byte_level(use_regex=True))},
    "digits": {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": False}, byte_level(use_regex=True))},
    "white space": {"pre_tokenizer": sequence({"type": "WhitespaceSplit"}, byte_level())},
    "inverted": {"pre_tokenizer": sequence(split(r"\p{L}+", "Removed", True), byte_level(add_prefix_space=True))},
    "previous": {"pre_tokenizer": sequence(split(" ", "MergedWithPrevious", kind="String"), byte_level())},
    "next": {"pre_tokenizer": sequence(split("[ .a]", "MergedWithNext"), byte_level())},
    "contiguous": {"pre_tokenizer": sequence(split(r"[^\S\n]", "Contiguous"), byte_level())},
    "anchors": {"pre_tokenizer": sequence(split(r"^.|.$|[\d\S]+?(?=a)"), byte_level())},
}
TEXTS = ["", "Hello, world!", "The cats' DON'T they'LL  we've\n\n  it's\t", "  two  spaces  \n ", "12345 and 6 7890 x2y \u0664\u00bd", "e\u0301t\u00e9 e\u0301x \u00e9x \u212b a\u0323\u0307",
         "\u65e5\u672c\u8a9e\u3000\ud55c\uae00 \u1112\u1161", "\U0001F468\u200d\U0001F469 \U0001F44D\U0001F3FD!!!\r\n\r\nif (x) {\n    return y;\n}", "a\u180eb\u0085c\u2028d\u00a0e\u202f\u205ff",
         "<s>word words <think>x<thinking> x <l>  <l> \n<b>  z  <r>  </s> a  a a <|user|> word", "camelCaseHTTPServer's x_y-z/../a\\b", "word\u0301 wor\u0064 \u017fs '\u017f"]


def main():
    cases = []
    for name, patch in VARIANTS.items():
        reference = Tokenizer.from_str(json.dumps({**BASE, **patch}))
        cases.append({"name": name, "patch": patch, "texts": [[t, reference.encode(t).ids] for t in TEXTS]})
    lines = ",\n".join(json.dumps(c, ensure_ascii=True) for c in cases)
    (HERE / "token_cases.json").write_text("[\n" + lines + "\n]\n", encoding="utf-8")


main()
