"""Text to tokens and back.

base.py       what a tokenizer is
byte.py       the bytes of UTF-8
subword.py    BPE and unigram, trained on a corpus, and tokenizers of the Hugging Face hub
load.py       the tokenizer that a study asks for, and that a checkpoint holds
"""

from nas.tasks.tokenizers.base import Placed, Tokenizer
from nas.tasks.tokenizers.byte import ByteTokenizer
from nas.tasks.tokenizers.load import make_tokenizer, tokenizer_from_json

__all__ = ["ByteTokenizer", "Placed", "Tokenizer", "make_tokenizer", "tokenizer_from_json"]
