"""Make data/fashion-mnist-mini.npz, the embedded sample, from Fashion-MNIST.

    python tools/make_mini.py           write the file and print its sha256
    python tools/make_mini.py --check   compare the arrays of the stored file with a fresh draw

The database is drawn from Fashion-MNIST's train part, the queries from its test part, class-balanced, seed 0.
The bytes of the file depend on the zlib version, the arrays do not: that is why --check compares arrays.
"""

import argparse
import hashlib
import io
import sys

import numpy as np

from pplkit import data, sources, storage
from pplkit.splits import draw_per_class

SEED = 0
PER_CLASS = {"database": ("train", 1000), "query": ("t10k", 100)}


def draw_mini(root: str | None) -> dict[str, np.ndarray]:
    """The arrays of the sample, as ``sources.read_mini`` describes them."""
    parts = sources.read_fashion_mnist(root)
    offset = {"train": 0, "t10k": len(parts["train"][1])}
    arrays = {}
    for part, (origin, count) in PER_CLASS.items():
        images, labels = parts[origin]
        index = draw_per_class(labels, [count] * len(sources.FASHION_MNIST_CLASSES), SEED)
        arrays[f"{part}_images"] = images[index, 0].numpy()  # (N, 28, 28)
        arrays[f"{part}_labels"] = labels[index].numpy().astype(np.uint8)
        arrays[f"{part}_index"] = (index + offset[origin]).numpy().astype(np.int32)
    return arrays


def main() -> int:
    """Write or check the sample; returns the exit status."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--root", help="folder of Fashion-MNIST's idx files")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    arguments = parser.parse_args()
    arrays = draw_mini(arguments.root)
    path = data.embedded() / data.MINI_FILE
    if arguments.check:
        stored = sources.read_mini(path, data.MINI_SHA256)
        wrong = [name for name in arrays | stored if not np.array_equal(arrays.get(name), stored.get(name))]
        print(f"{path}: " + (f"differs in {', '.join(wrong)}" if wrong else "equals a fresh draw"))
        return 1 if wrong else 0
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    storage.write_bytes(path, buffer.getvalue())
    print(f"{path}: {len(buffer.getvalue())} bytes, sha256 {hashlib.sha256(buffer.getvalue()).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
