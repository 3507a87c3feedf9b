"""Labelled images from local files (nothing is downloaded), imbalanced subsets, and images that need no file."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from ufm.deprecated import former_argument
from ufm.errors import InvalidInput, checked_seed, unmasked, whole_number

CLASSES = 10
IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049
SIDE = 28  # of MNIST and Fashion-MNIST
CIFAR_SIDE, CIFAR_RECORDS = 32, 10_000
MOST_BYTES = 2**28
# The synthetic images.
SYNTHETIC_SIDE, SYNTHETIC_TEST = 16, 40
SYNTHETIC_NOISE = 40.0


class Samples(NamedTuple):
    """Images as bytes and their classes."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels


class Dataset(NamedTuple):
    """Samples for training and for testing."""

    train: Samples
    test: Samples


def read(name: str, directory: Path) -> Dataset:
    """The data set of this name (`DATASETS`) from a directory that holds its files, or from a folder in it.

    Raises InvalidInput, with one line that names the file, if a file is missing, cut short, or of another size or kind.
    """
    if name not in DATASETS:
        raise InvalidInput("dataset", name, f"choose one of {', '.join(DATASETS)}, synthetic")
    if not directory.is_dir():
        raise InvalidInput("data", str(directory), f"no such directory; {WHERE[name]}")
    return DATASETS[name](name, directory)


def imbalanced(samples: Samples, sizes: Sequence[int] | Int[np.ndarray, " k"], seed: int) -> Samples:
    """sizes[c] random samples of each class c, class after class; classes without a size are left out.

    Raises InvalidInput if a class has fewer.
    """
    random = np.random.default_rng(checked_seed(seed))
    chosen = []
    for c, size in enumerate(np.asarray(unmasked("sizes", sizes)).tolist()):
        of_class = np.flatnonzero(samples.labels == c)
        if not 1 <= size <= len(of_class):
            raise InvalidInput("sizes", size, f"class {c} has {len(of_class)} images; give a number from 1 to that")
        chosen.append(np.sort(random.permutation(of_class)[:size]))
    index = np.concatenate(chosen)
    return Samples(samples.images[index], samples.labels[index])


@former_argument("share", "fraction")
def mislabelled(samples: Samples, fraction: float, seed: int) -> tuple[Samples, Int[np.ndarray, " p"]]:
    """The samples with this fraction of labels (rounded) changed to a random other class, and the indices of those.

    Raises InvalidInput for a bad seed.
    """
    random = np.random.default_rng([checked_seed(seed), 2])
    k = int(samples.labels.max()) + 1
    chosen = np.sort(random.permutation(len(samples.labels))[: round(fraction * len(samples.labels))])
    labels = samples.labels.copy()
    labels[chosen] = (labels[chosen] + random.integers(1, k, len(chosen))) % k
    return samples._replace(labels=labels), chosen


def synthetic(sizes: Sequence[int] | Int[np.ndarray, " k"], seed: int = 0) -> Dataset:
    """Small grey images that need no file: one smooth random pattern for each class, shifted, dimmed and with noise.

    sizes: (k,), training images of each class. Each class has SYNTHETIC_TEST test images. Raises InvalidInput for fewer
    than 2 classes or a bad seed.
    """
    random = np.random.default_rng(checked_seed(seed))
    k = whole_number("k", len(sizes), 2, "give at least 2 classes")
    coarse = random.uniform(0, 255, (k, 5, 5))
    patterns = np.stack([_smooth(pattern, SYNTHETIC_SIDE) for pattern in coarse])

    def drawn(counts: Sequence[int]) -> Samples:
        labels = np.repeat(np.arange(k), counts)
        shifts = random.integers(-1, 2, (len(labels), 2))
        images = np.stack(
            [np.roll(patterns[c], tuple(shift), (0, 1)) for c, shift in zip(labels.tolist(), shifts, strict=True)]
        )
        images = images * random.uniform(0.6, 1.0, (len(labels), 1, 1)) + random.normal(
            0, SYNTHETIC_NOISE, images.shape
        )
        return Samples(np.clip(images, 0, 255).astype(np.uint8)[..., None], labels)

    return Dataset(drawn([int(size) for size in sizes]), drawn([SYNTHETIC_TEST] * k))


def _smooth(coarse: np.ndarray, side: int) -> np.ndarray:
    """Bilinear interpolation of a small square to a larger one."""
    place, known = np.linspace(0, len(coarse) - 1, side), np.arange(len(coarse))
    along = np.stack([np.interp(place, known, row) for row in coarse])
    return np.stack([np.interp(place, known, column) for column in along.T], axis=1)


def _idx(name: str, directory: Path) -> Dataset:
    """A data set of four IDX files, plain or gzipped."""

    def part(prefix: str) -> Samples:
        images = _idx_array(_locate(name, directory, f"{prefix}-images-idx3-ubyte"), IMAGES_MAGIC, (SIDE, SIDE))
        path = _locate(name, directory, f"{prefix}-labels-idx1-ubyte")
        return _checked(path, images[..., None], _idx_array(path, LABELS_MAGIC, ()))

    return Dataset(part("train"), part("t10k"))


def _idx_array(path: Path, magic: int, shape: tuple[int, ...]) -> UInt8[np.ndarray, ...]:
    """The content of an IDX file: items of this shape, which its header must state."""
    content = _content(path)
    head = 4 * (2 + len(shape))
    if len(content) < head:
        raise InvalidInput("data", path.name, f"the file is cut short, at {len(content)} bytes; get it again")
    numbers = np.frombuffer(content[:head], ">u4").tolist()
    if numbers[0] != magic:
        raise InvalidInput(
            "data", path.name, f"its magic number is {numbers[0]} and not {magic}; this is another kind of file"
        )
    if tuple(numbers[2:]) != shape:
        raise InvalidInput("data", path.name, f"its items are {numbers[2:]} and not {list(shape)} pixels")
    if numbers[1] < 1:
        raise InvalidInput("data", path.name, "its header states no items")
    promised = numbers[1] * int(np.prod(shape, dtype=np.int64))
    if len(content) - head != promised:
        fix = f"{len(content) - head:,} bytes follow a header that states {promised:,}; get it again"
        raise InvalidInput("data", path.name, fix)
    return np.frombuffer(content, np.uint8, offset=head).reshape(numbers[1], *shape)


def _cifar(name: str, directory: Path) -> Dataset:
    """The six files of CIFAR-10's binary version: a byte of label, then 3 x 32 x 32 of red, green and blue."""

    def part(files: Sequence[str]) -> Samples:
        parts = []
        for file in files:
            path = _locate(name, directory, file)
            content, record = _content(path), 1 + 3 * CIFAR_SIDE**2
            if len(content) != CIFAR_RECORDS * record:
                fix = f"{len(content):,} bytes are not {CIFAR_RECORDS:,} records of {record:,}; get it again"
                raise InvalidInput("data", path.name, fix)
            rows = np.frombuffer(content, np.uint8).reshape(-1, record)
            images = rows[:, 1:].reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE).transpose(0, 2, 3, 1)
            parts.append(_checked(path, images, rows[:, 0]))
        return Samples(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    return Dataset(part([f"data_batch_{b}.bin" for b in range(1, 6)]), part(["test_batch.bin"]))


def _checked(path: Path, images: np.ndarray, labels: np.ndarray) -> Samples:
    if len(images) != len(labels):
        raise InvalidInput(
            "data", path.name, f"there are {len(labels):,} labels for {len(images):,} images; get both files again"
        )
    if labels.max() >= CLASSES:
        raise InvalidInput("data", path.name, f"label {labels.max()} is not from 0 to {CLASSES - 1}")
    if len(missing := np.setdiff1d(np.arange(CLASSES), labels)):
        raise InvalidInput("data", path.name, f"class {missing[0]} has no image")
    return Samples(images, labels.astype(np.int64))


def _locate(name: str, directory: Path, file: str) -> Path:
    """The file, plain or gzipped, in the directory or in one of the places archives unpack to."""
    for place in (directory, directory / name, directory / "cifar-10-batches-bin"):
        for path in (place / file, place / f"{file}.gz"):
            if path.is_file():
                return path
    raise InvalidInput("data", str(directory), f"it holds no {file} or {file}.gz; {WHERE[name]}")


def _content(path: Path) -> bytes:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise InvalidInput("data", path.name, f"it cannot be read ({reason}); get it again") from None
    if len(content) > MOST_BYTES:
        raise InvalidInput("data", path.name, f"it has more than {MOST_BYTES:,} bytes; this is another kind of file")
    return content


DATASETS: dict[str, Callable[[str, Path], Dataset]] = {"mnist": _idx, "fashion-mnist": _idx, "cifar10": _cifar}
WHERE = {
    "mnist": "get the four files train-*-ubyte.gz and t10k-*-ubyte.gz of MNIST from its mirrors",
    "fashion-mnist": "apt-get install dataset-fashion-mnist puts it into /usr/share/datasets/fashion-mnist",
    "cifar10": "get the binary version, cifar-10-binary.tar.gz, from the page of CIFAR-10, and unpack it",
}
