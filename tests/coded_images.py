"""Random codes and labels for the tests of retrieval and of its counts."""

import torch


def random_images(count, bits, classes=3, seed=0, dtype=torch.int8):
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2, (count, bits), generator=random) * 2 - 1
    return codes.to(dtype), torch.randint(classes, (count,), generator=random)


def multi_hot(count, labels=5, share=0.3, seed=0):
    return torch.rand(count, labels, generator=torch.Generator().manual_seed(seed)) < share
