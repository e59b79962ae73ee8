"""The targets of the fuzzer read their seeds, and changed seeds end in one clear error at most."""

import numpy as np
import pytest

import fuzz
from mien._errors import MienError

# The targets of the server keep it running until the process ends; tests/serve changes requests and messages.
TARGETS = sorted(fuzz.TARGETS.keys() - {"request", "message"})


def changed(seed: bytes, generator: np.random.Generator) -> bytes:
    """Bytes replaced at random, a part removed or repeated."""
    data = bytearray(seed)
    for at in generator.integers(0, len(data), generator.integers(1, 9)):
        data[at] = generator.integers(256)
    start, end = sorted(generator.integers(0, len(data), 2))
    return bytes(data[:start] + data[end:] if generator.random() < 0.3 else data + data[start:end])


@pytest.mark.parametrize("name", TARGETS)
def test_changed_seeds_end_in_one_clear_error(name: str) -> None:
    run, seeds = fuzz.TARGETS[name]()
    generator = np.random.default_rng(0)
    assert seeds
    messages = []
    for seed in seeds:
        for data in [seed, *(changed(seed, generator) for _ in range(max(1, 40 // len(seeds))))]:
            try:
                run(data)
            except MienError as error:
                messages.append(str(error))
    assert messages
    assert not any("\n" in message for message in messages)
