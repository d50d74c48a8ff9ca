#!/usr/bin/env python3
"""Makes sentencepiece_llama.json and sentencepiece_gemma.json: small BPE models with byte fallback, in the shape that transformers' converters give Llama 2's and
Gemma's. Other texts make other vocabularies; record_tokens.py is to be run after this.

  train_sentencepiece.py TEXT...        needs sentencepiece and transformers < 5 (0.2.3 and 4.57 when the files were last made, from docs/*.md)
"""
import json
import sys
import tempfile
from pathlib import Path

import sentencepiece
from tokenizers import processors
from transformers.convert_slow_tokenizer import GemmaConverter, LlamaConverter

HERE = Path(__file__).resolve().parent
SCRIPTS = ["Größe, Übermaß, Straße; déjà vu, naïve café", "Привет, мир! Как дела?", "日本語のテキスト、東京と京都", "안녕하세요 세계", "def f(x):\n    return  x + 1", "12 345 0.5"]


class Slow:
    """What the converters ask of a tokenizer."""

    def __init__(self, path, **settings):
        self.vocab_file = str(path)
        self.pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.__dict__.update(settings)

    def convert_ids_to_tokens(self, i):
        return self.pieces.id_to_piece(i)


def make(name, bos, convert, **settings):
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text"
        text.write_text("\n".join([Path(p).read_text(encoding="utf-8") for p in sys.argv[1:]] + SCRIPTS * 20), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=f"{folder}/m", model_type="bpe", byte_fallback=True, character_coverage=0.99, normalization_rule_name="identity",
            remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True, max_sentence_length=100000, minloglevel=2, **settings)
        tokenizer = convert(Path(folder) / "m.model").converted()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))])
    text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
    (HERE / name).write_text(text + "\n", encoding="utf-8")


make("sentencepiece_llama.json", "<s>", lambda path: LlamaConverter(Slow(path, unk_token="<unk>", legacy=True)), vocab_size=560)
make("sentencepiece_gemma.json", "<bos>", lambda path: GemmaConverter(Slow(path, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>")), vocab_size=560,
     add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
     user_defined_symbols=["<start_of_turn>", "<end_of_turn>", "<unused0>", "\n\n", "▁▁", "▁▁▁▁"])
