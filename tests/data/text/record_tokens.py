#!/usr/bin/env python3
"""Records token_cases.json: what the `tokenizers` library makes of texts, with the tokenizers here and with parts of them replaced.

A case is {"name", "file", "patch": members that are replaced (those of "model" one by one), "texts": [[text, ids], ...], "decoded": [[ids, text], ...]}.

  record_tokens.py        needs tokenizers (0.23.3 when the file was last made)
"""
import json
from pathlib import Path

from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
BASE, LLAMA, GEMMA = [json.loads((HERE / name).read_text(encoding="utf-8")) for name in ("tokenizer.json", "sentencepiece_llama.json", "sentencepiece_gemma.json")]
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




def replace(pattern, content, kind="String"):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def metaspace(scheme, cut, replacement="\u2581"):
    return {"type": "Metaspace", "replacement": replacement, "prepend_scheme": scheme, "split": cut}


def normalizers(*parts):
    return {"type": "Sequence", "normalizers": list(parts)}


def decoders(*parts):
    return {"type": "Sequence", "decoders": list(parts)}


def with_added(base, *tokens):
    """The ids that the library gives: of the vocabulary, else the next ones."""
    vocab, out = base["model"]["vocab"], list(base["added_tokens"])
    for content, settings in tokens:
        new = sum(1 for t in out if t["content"] not in vocab)
        out.append(added(vocab.get(content, len(vocab) + new), content, **settings))
    return out


SPACE = replace(" ", "\u2581")
FALLBACK = {"type": "ByteFallback"}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
# Name -> what replaces the members of sentencepiece_llama.json.
LLAMA_VARIANTS = {
    "llama 2": {},
    "llama 2, not legacy": {"normalizer": None, "pre_tokenizer": metaspace("first", False)},
    "no prefix": {"normalizer": normalizers(SPACE), "decoder": decoders(replace("\u2581", " "), FALLBACK, {"type": "Fuse"})},
    "mistral 0.3": {"normalizer": None, "pre_tokenizer": metaspace("first", False),
                    "added_tokens": with_added(LLAMA, ("[INST]", {"special": True}), ("[/INST]", {"special": True}), ("[AVAILABLE_TOOLS]", {"special": True}))},
    "phi 3": {"added_tokens": with_added(LLAMA, ("<|endoftext|>", {"special": True}), ("<|assistant|>", {"special": True, "rstrip": True}),
                                         ("<|end|>", {"special": True, "rstrip": True}), ("<|user|>", {"special": True, "rstrip": True}))},
    "normalized": {"added_tokens": with_added(LLAMA, ("word", {"normalized": True, "single_word": True}), (" x", {"normalized": True, "lstrip": True, "rstrip": True}),
                                              ("[PAD]", {"normalized": True}))},
    "always, split": {"normalizer": None, "pre_tokenizer": metaspace("always", True), "decoder": metaspace("always", True)},
    "older metaspace": {"normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "str_rep": "\u2581", "add_prefix_space": True},
                        "decoder": {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True}},
    "never": {"normalizer": {"type": "NFKC"}, "pre_tokenizer": {**metaspace("never", True), "add_prefix_space": False}, "decoder": metaspace("never", True)},
    "first, after splits": {"normalizer": None, "pre_tokenizer": sequence({"type": "WhitespaceSplit"}, split(r"\p{N}+"), metaspace("first", False, "_"))},
    "unknown": {"normalizer": normalizers({"type": "NFD"}, replace(r"\s+", " ", "Regex"), replace("th", ""), SPACE), "model": {"byte_fallback": False, "fuse_unk": False}},
    "fused": {"model": {"byte_fallback": False}},
    "nothing for unknown": {"normalizer": {"type": "NFKD"}, "model": {"byte_fallback": False, "unk_token": None}},
    "whole words": {"normalizer": None, "pre_tokenizer": metaspace("always", True), "model": {"ignore_merges": True}},
    # The unknown token of a character comes after the bytes of those that follow it.
    "some bytes": {"added_tokens": [], "post_processor": None, "model": {
        "vocab": {"<unk>": 0, "<0xC3>": 1, "<0xA9>": 2, "<0xA8>": 3, "a": 4, "b": 5, "\u2581": 6, "ab": 7, "<0xC3><0xA9>": 8, "<0xA9>a": 9, "\u2581a": 10},
        "merges": ["a b", "<0xC3> <0xA9>", "<0xA9> a", "\u2581 a"]}},
    "strips": {"decoder": decoders(replace("[\u2581]", " ", "Regex"), replace("ing", "ed"), {"type": "Fuse"}, {**STRIP, "start": 2})},
}
GEMMA_VARIANTS = {
    "gemma": {},
    "gemma 3": {"added_tokens": with_added(GEMMA, ("<image_soft_token>", {"special": True}), ("\n", {}), ("<h1>", {}))},
}
PIECES_TEXTS = TEXTS + [
    " ", "  ", "\u2581", " \u2581 \u2581\u2581", "<s>", "<s> <s>x</s> </s>  y", "<unk><unk> <pad>", "[INST] Hello [/INST] Hi there</s><s>[INST]  again[/INST]",
    "<|user|>\nHi!<|end|>\n<|assistant|>\n  So", "<start_of_turn>user\nHi <end_of_turn>\n<start_of_turn>model\n\n\n", "<bos>a<image_soft_token>b<h1> c<unused0>",
    "  x  x word x[PAD] [PAD]", "\t\ttabs\tand\x00\x07\x1b\x7f", "a" * 70 + " " * 70 + "1" * 9, "the weights of the model; the tokens of the text", "<0x41><0x0A>",
    "ab\u00e9ba\u00e8\u00ea\u00e9\u00ea\u00eab \u65e5\u00e9a", "\ufb01\uff21\u2460 \u1e9b\u0323", "\U0001F9D1\U0001F3FF\u200d\U0001F680 \u2764\ufe0f", "x = [1,2]\n\n\n\n    return  None\n"]


def case(name, file, base, patch, texts, decodes):
    document = {**base, **patch, "model": {**base["model"], **patch.get("model", {})}}
    reference = Tokenizer.from_str(json.dumps(document))
    out = {"name": name, "file": file, "patch": patch, "texts": [[t, reference.encode(t).ids] for t in texts]}
    if decodes:
        # As it is from the start of a text and from within it.
        ids = [i for _, i in out["texts"] if i]
        ids += [i[len(i) // 2:] for i in ids]
        out["decoded"] = [[i, reference.decode(i, skip_special_tokens=True)] for i in ids]
        out["decoded"] = [[i, t] for i, t in out["decoded"] if "\ufffd" not in t]  # bytes that are no UTF-8
    return out


def main():
    cases = [case(name, "tokenizer.json", BASE, patch, TEXTS, False) for name, patch in VARIANTS.items()]
    cases += [case(name, "sentencepiece_llama.json", LLAMA, patch, PIECES_TEXTS, True) for name, patch in LLAMA_VARIANTS.items()]
    cases += [case(name, "sentencepiece_gemma.json", GEMMA, patch, PIECES_TEXTS, True) for name, patch in GEMMA_VARIANTS.items()]
    lines = ",\n".join(json.dumps(c, ensure_ascii=True, separators=(",", ":")) for c in cases)
    (HERE / "token_cases.json").write_text("[\n" + lines + "\n]\n", encoding="utf-8")


main()
