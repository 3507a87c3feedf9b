"""Images from files: what is read, every way in which a file may be damaged, subsets, and batches of an epoch."""

import gzip
import re
import shutil
import struct

import numpy as np
import pytest

import networks
import ufm
from networks import data
from networks.batches import BATCHINGS, epoch_of, law_of

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CIFAR = (*(f"data_batch_{b}.bin" for b in range(1, 6)), "test_batch.bin")
RECORD = 3073


def idx_images(count, seed=0):
    random = np.random.default_rng(seed)
    return struct.pack(">4I", 2051, count, 28, 28) + random.integers(0, 256, count * 784, np.uint8).tobytes()


def idx_labels(count):
    return struct.pack(">2I", 2049, count) + (np.arange(count) % 10).astype(np.uint8).tobytes()


def write_idx(folder, count=30):
    for name in IDX:
        (folder / name).write_bytes(idx_images(count) if "images" in name else idx_labels(count))


def write_cifar(folder, records=20):
    for seed, name in enumerate(CIFAR):
        rows = np.random.default_rng(seed).integers(0, 256, (records, RECORD), np.uint8)
        rows[:, 0] = np.arange(records) % 10
        (folder / name).write_bytes(rows.tobytes())


@pytest.fixture(autouse=True)
def few_records(monkeypatch):
    monkeypatch.setattr(data, "CIFAR_RECORDS", 20)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("below", ["", "fashion-mnist"])
def test_idx_files_are_read_as_they_are(tmp_path, packed, below):
    folder = tmp_path / below
    folder.mkdir(exist_ok=True)
    write_idx(folder)
    if packed:
        for name in IDX:
            (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
            (folder / name).unlink()
    result = networks.read("fashion-mnist", tmp_path)
    assert result.train.shape == (28, 28, 1)
    assert result.train.images[3, 5, 7, 0] == idx_images(30)[16 + 3 * 784 + 5 * 28 + 7]
    assert result.test.labels.tolist() == [i % 10 for i in range(30)]


def test_cifar_files_are_read_channel_after_channel(tmp_path):
    write_cifar(tmp_path)
    result = networks.read("cifar10", tmp_path)
    assert result.train.shape == (32, 32, 3)
    assert len(result.train.labels) == 100
    raw = (tmp_path / "data_batch_2.bin").read_bytes()
    place = 7 * RECORD + 1 + 2 * 1024 + 4 * 32 + 9  # blue of row 4, column 9 of record 7
    assert result.train.images[20 + 7, 4, 9, 2] == raw[place]


def resized(size):
    return lambda content: content[:size] if size < len(content) else content + bytes(size - len(content))


def header(place, number):
    return lambda content: content[: 4 * place] + struct.pack(">I", number) + content[4 * place + 4 :]


DAMAGE = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "half a header": lambda content: content[:6],
    "one byte short": lambda content: content[:-1],
    "one byte more": lambda content: content + b"\0",
    "half": lambda content: content[: len(content) // 2],
    "twice": lambda content: content * 2,
    "text": lambda content: b"<!doctype html><title>404</title>" * 9,
    "zeros": lambda content: bytes(len(content)),
    "ones": lambda content: b"\xff" * len(content),
}
IDX_DAMAGE = {
    "magic of labels": header(0, 2049),
    "magic of images": header(0, 2051),
    "no magic": header(0, 0),
    "little-endian": lambda content: content[3::-1] + content[4:],
    "promises less": header(1, 29),
    "promises more": header(1, 31),
    "promises none": header(1, 0),
    "promises 4 billion": header(1, 2**32 - 1),
}
CASES = (
    [("fashion-mnist", name, kind) for name in IDX[:2] for kind in (*DAMAGE, *IDX_DAMAGE)]
    + [("fashion-mnist", IDX[0], kind) for kind in ("27 rows", "29 columns")]
    + [("fashion-mnist", IDX[3], kind) for kind in ("label 10", "a class without image")]
    + [("cifar10", name, kind) for name in (CIFAR[0], CIFAR[5]) for kind in DAMAGE]
    + [("cifar10", CIFAR[3], kind) for kind in ("one record short", "label 10", "a class without image")]
    + [("mnist", IDX[2], kind) for kind in ("cut gzip", "no gzip", "flipped gzip")]
)
# Whatever kind of file it is, these change nothing.
SOUND = {(IDX[0], "magic of images"), (IDX[1], "magic of labels")}


def label(value, place):
    return lambda content: content[:place] + bytes([value]) + content[place + 1 :]


def damaged(folder, name, kind):
    path = folder / name
    content = path.read_bytes()
    others = {
        "27 rows": header(2, 27),
        "29 columns": header(3, 29),
        "label 10": label(10, 0 if name in CIFAR else 9),
        "a class without image": lambda content: (
            np.where(np.arange(len(content)) % RECORD == 0, 1, np.frombuffer(content, np.uint8))
            .astype(np.uint8)
            .tobytes()
            if name in CIFAR
            else content[:8] + bytes(len(content) - 8)
        ),
        "one record short": lambda content: content[:-RECORD],
    }
    if kind.endswith("gzip"):
        packed = gzip.compress(content)
        broken = {"cut gzip": packed[:-20], "no gzip": content}.get(kind, packed[:40] + b"\x55" * 9 + packed[49:])
        path.unlink()
        (folder / f"{name}.gz").write_bytes(broken)
        return
    path.write_bytes((DAMAGE | IDX_DAMAGE | others)[kind](content))


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    write_idx(folder)
    write_cifar(folder)
    return folder


@pytest.mark.parametrize(("name", "file", "kind"), [case for case in CASES if case[1:] not in SOUND])
def test_a_damaged_file_is_named_in_one_line(sound_files, tmp_path, name, file, kind):
    folder = shutil.copytree(sound_files, tmp_path / "files")
    damaged(folder, file, kind)
    with pytest.raises(ufm.InvalidInput, match=r"^data = ") as bad:
        networks.read(name, folder)
    assert file in str(bad.value)
    assert "\n" not in str(bad.value)


def test_there_are_fifty_kinds_of_damage():
    assert len([case for case in CASES if case[1:] not in SOUND]) >= 50


@pytest.mark.parametrize("name", [*networks.data.DATASETS])
def test_what_is_missing_is_said_with_where_to_get_it(tmp_path, name):
    with pytest.raises(ufm.InvalidInput, match=re.escape(data.WHERE[name])):
        networks.read(name, tmp_path)
    with pytest.raises(ufm.InvalidInput, match="no such directory"):
        networks.read(name, tmp_path / "nowhere")
    with pytest.raises(ufm.InvalidInput, match="dataset = 'imagenet'"):
        networks.read("imagenet", tmp_path)


def test_imbalanced_subsets_are_seeded_and_of_the_sizes_asked():
    samples = networks.synthetic([20, 20, 20]).train
    first, again, other = (networks.imbalanced(samples, [20, 5, 2], seed) for seed in (0, 0, 1))
    assert np.bincount(first.labels).tolist() == [20, 5, 2]
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)
    distinct = {image.tobytes() for image in first.images[first.labels == 0]}
    assert distinct == {image.tobytes() for image in samples.images[samples.labels == 0]}
    for sizes in ([21, 1, 1], [1, 0, 1]):
        with pytest.raises(ufm.InvalidInput, match="sizes"):
            networks.imbalanced(samples, sizes, 0)


def test_synthetic_images_are_seeded_and_their_classes_can_be_told_apart():
    made, again, other = networks.synthetic([9, 9, 3]), networks.synthetic([9, 9, 3]), networks.synthetic([9, 9, 3], 1)
    assert np.array_equal(made.train.images, again.train.images)
    assert not np.array_equal(made.train.images, other.train.images)
    assert made.train.shape == made.test.shape
    means = np.stack([made.train.images[made.train.labels == c].mean(axis=0) for c in range(3)])
    distance = ((made.test.images[:, None] - means) ** 2).sum(axis=(2, 3, 4))
    assert (distance.argmin(axis=1) == made.test.labels).mean() > 0.9


LABELS = np.repeat(np.arange(4), [20, 20, 3, 3])


@pytest.mark.parametrize("name", BATCHINGS)
def test_every_slot_is_fed_and_no_sample_counts_twice_in_a_batch(name):
    first, again, later = (epoch_of(name, LABELS, 8, epoch, 3) for epoch in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert first.index.shape == first.counts.shape == later.index.shape
    assert first.index.min() >= 0
    assert first.index.max() < len(LABELS)
    for row, counts in zip(first.index, first.counts, strict=True):
        assert len(np.unique(row[counts])) == counts.sum()
    same = np.array_equal(first.index[first.counts], later.index[later.counts])
    assert same is name.endswith("fixed")


def test_partitions_and_binding():
    for name in ("reshuffled", "fixed"):
        epoch = epoch_of(name, LABELS, 8, 5, 0)
        assert sorted(epoch.index[epoch.counts]) == list(range(46))
    for name in ("bound", "bound-fixed"):
        batches = [
            set(row[counts]) for e in (0, 7) for row, counts in zip(*epoch_of(name, LABELS, 8, e, 0), strict=True)
        ]
        binding = set.intersection(*batches)
        assert sorted(LABELS[list(binding)]) == [0, 1, 2, 3]


def test_m_of_every_class_in_each_batch():
    epoch = epoch_of("m-per-class", LABELS, 8, 0, 0)
    for row, counts in zip(*epoch, strict=True):
        assert (np.bincount(LABELS[row[counts]], minlength=4) <= 2).all()
    fed = np.stack([np.bincount(LABELS[row[counts]], minlength=4) for row, counts in zip(*epoch, strict=True)])
    assert (fed[:, :2] == 2).mean() > 0.9
    with pytest.raises(ufm.InvalidInput, match="batch_size = 3"):
        epoch_of("m-per-class", LABELS, 3, 0, 0)


def test_epochs_take_turns_among_recycled_partitions():
    def index(name, epoch):
        return epoch_of(name, LABELS, 8, epoch, 3).index.tolist()

    drawn = [index("recycled:3", epoch) for epoch in range(7)]
    assert drawn[:3] == [index("reshuffled", epoch) for epoch in range(3)]
    filled = [[sorted(row) for row in law_of("recycled:3")(LABELS, 8, epoch, 3).tolist()] for epoch in range(7)]
    assert filled[3:6] == filled[:3]
    assert filled[6] == filled[0]
    assert len({str(one) for one in filled}) == 3
    same = [law_of("recycled:1")(LABELS, 8, epoch, 3).tolist() for epoch in (0, 5)]
    assert same[0] == same[1] == law_of("fixed")(LABELS, 8, 9, 3).tolist()


@pytest.mark.parametrize("name", ["recycled:", "recycled:0", "recycled:-1", "recycled:2.5", "recycled:²", "fixed:3"])
def test_what_is_no_pool(name):
    with pytest.raises(ufm.InvalidInput, match="only recycled takes a number, that of partitions, as in recycled:10"):
        epoch_of(name, LABELS, 8, 0, 0)
    with pytest.raises(ufm.InvalidInput, match="batching"):
        law_of(f"recycled:{'9' * 5000}")


def test_what_is_no_batching():
    with pytest.raises(ufm.InvalidInput, match="batching = 'random'"):
        epoch_of("random", LABELS, 8, 0, 0)
    with pytest.raises(ufm.InvalidInput, match="batch_size = 1"):
        epoch_of("fixed", LABELS, 1, 0, 0)
