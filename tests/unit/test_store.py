import contextlib
import multiprocessing
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from etaflow.store import (
    Embeddings,
    EmbeddingWriter,
    FeatureMeta,
    FeatureStore,
    FeatureWriter,
    StoreError,
    resumable,
)

ROOT = Path(__file__).resolve().parents[2]
META = FeatureMeta("m", "r", 3, False, 16_000, 320)


def features(seed: int, frames: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(frames, 4)).astype(np.float32)


def write(path: Path, names: list[str], lengths: list[int], meta: FeatureMeta = META) -> None:
    with FeatureWriter(
        path, meta, names, ["s"] * len(names), [320 * n for n in lengths], lengths, 4
    ) as writer:
        for seed in reversed(range(len(names))):
            writer.write(names[seed], features(seed, lengths[seed]))


def test_shards_read_as_one_mapping(tmp_path: Path) -> None:
    write(tmp_path / "0.h5", ["a", "b"], [3, 5])
    write(tmp_path / "1.h5", ["c"], [2])
    write(tmp_path / "2.h5", [], [])
    store = FeatureStore([tmp_path / f"{i}.h5" for i in range(3)], {"layer": 3})
    assert list(store) == ["a", "b", "c"]
    assert store.num_frames.tolist() == [3, 5, 2]
    assert store.meta == META
    np.testing.assert_allclose(store["b"], features(1, 5), atol=2e-3)
    np.testing.assert_array_equal(store.read("b", 1, 3), store["b"][1:3])
    np.testing.assert_array_equal(store.read("a", 2, 99), store["a"][2:])
    # Sums are of the features before they were rounded to float16.
    np.testing.assert_allclose(store.frame_sum[1], features(1, 5).sum(axis=0), rtol=1e-6)
    np.testing.assert_allclose(store.frame_square_sum[2], (features(0, 2) ** 2).sum(axis=0))


def _read(store: FeatureStore) -> float:
    return float(store["a"].sum())


def test_a_store_can_be_read_in_worker_processes(tmp_path: Path) -> None:
    write(tmp_path / "0.h5", ["a"], [3])
    store = FeatureStore([tmp_path / "0.h5"])
    expected = _read(store)
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(_read, (store,)) == expected


def test_a_shard_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "0.h5"
    with (
        pytest.raises(StoreError, match=r"1 utterance\(s\) not written, the first is b"),
        FeatureWriter(path, META, ["a", "b"], ["s", "s"], [1, 1], [3, 3], 4) as writer,
    ):
        writer.write("a", features(0, 3))
    assert not path.exists()
    with pytest.raises(StoreError, match="not a complete etaflow-features/1"):
        FeatureStore([tmp_path / ".0.h5.part"])


KILLED = """
import os, signal, sys
import numpy as np
from tests.unit.test_store import META, features
from etaflow.store import FeatureWriter
names, lengths = [str(i) for i in range(20)], [50 + i for i in range(20)]
with FeatureWriter(sys.argv[1], META, names, ["s"] * 20, lengths, lengths, 4) as writer:
    for done, name in enumerate(writer.remaining):
        writer.write(name, features(int(name), lengths[int(name)]))
        if done == 6:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    path, names, lengths = (
        tmp_path / "a.h5",
        [str(i) for i in range(20)],
        [50 + i for i in range(20)],
    )
    for killed in (7, 14):
        done = subprocess.run([sys.executable, "-c", KILLED, path], cwd=ROOT, check=False)
        assert done.returncode == -signal.SIGKILL
        assert not path.exists()
        with h5py.File(tmp_path / ".a.h5.part") as file:
            assert file["written"][()].sum() == killed
    arguments = (META, names, ["s"] * 20, lengths, lengths, 4)
    with FeatureWriter(path, *arguments) as writer:
        assert writer.remaining == names[14:]
        for name in writer.remaining:
            writer.write(name, features(int(name), lengths[int(name)]))
    with FeatureWriter(tmp_path / "b.h5", *arguments) as writer:
        for name in names:
            writer.write(name, features(int(name), lengths[int(name)]))
    assert path.read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_other_work_starts_over(tmp_path: Path) -> None:
    def remaining(fingerprint: str, dtype: str = "float16") -> list[str]:
        with (
            contextlib.suppress(StoreError),
            FeatureWriter(
                tmp_path / "0.h5",
                META,
                ["a", "b"],
                ["s"] * 2,
                [1] * 2,
                [3] * 2,
                4,
                dtype,
                fingerprint,
            ) as writer,
        ):
            left = writer.remaining
            writer.write(left[0], features(0, 3))
        return left

    assert remaining("one") == ["a", "b"]
    assert remaining("one") == ["b"]
    (tmp_path / "0.h5").unlink()
    assert remaining("one") == ["a", "b"]
    assert remaining("two") == ["a", "b"]
    assert remaining("two", "float32") == ["a", "b"]
    (tmp_path / ".0.h5.part").write_bytes(b"cut short")
    assert remaining("two") == ["a", "b"]


def test_a_flipped_bit_anywhere_is_an_error_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "0.h5"
    write(path, ["a", "b"], [40, 50])
    whole = path.read_bytes()
    expected = {name: array.tobytes() for name, array in FeatureStore([path]).items()}
    generator = np.random.default_rng(0)
    refused = 0
    for place in generator.choice(len(whole), 300, replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        try:
            store = FeatureStore([path], {"layer": 3})
            assert {name: array.tobytes() for name, array in store.items()} == expected
        except StoreError:
            refused += 1
    assert refused > 100


def test_a_range_is_checked_as_the_whole_is(tmp_path: Path) -> None:
    path = tmp_path / "0.h5"
    write(path, ["a"], [3000])
    with h5py.File(path) as file:
        end = file["frames"].id.get_offset() + 3000 * 4 * 2
    with path.open("r+b") as stream:
        stream.seek(end - 2)
        stream.write(b"xy")
    with pytest.raises(
        StoreError, match=r"damaged \(the frames of a fail their checksum\); delete it"
    ):
        FeatureStore([path]).read("a", 0, 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 70_000.0])
def test_what_float16_cannot_hold_is_refused(tmp_path: Path, bad: float) -> None:
    values = features(0, 3)
    values[1, 2] = bad
    with (
        pytest.raises(StoreError, match="a: NaN, infinite or beyond float16"),
        FeatureWriter(tmp_path / "0.h5", META, ["a"], ["s"], [1], [3], 4) as writer,
    ):
        writer.write("a", values)


def test_wrong_shapes_and_repeated_ids_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match=r"features \(2, 4\), announced \(3, 4\)"),
        FeatureWriter(tmp_path / "0.h5", META, ["a"], ["s"], [1], [3], 4) as writer,
    ):
        writer.write("a", features(0, 2))
    with pytest.raises(StoreError, match="stands twice"):
        FeatureWriter(tmp_path / "0.h5", META, ["a", "a"], ["s"] * 2, [1] * 2, [3] * 2, 4)


def test_readers_refuse_what_was_not_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "0.h5", ["a"], [3])
    with pytest.raises(StoreError, match="layer is 3, asked for 6"):
        FeatureStore([tmp_path / "0.h5"], {"layer": 6})
    with pytest.raises(StoreError, match="another shard too"):
        FeatureStore([tmp_path / "0.h5", tmp_path / "0.h5"])
    other = FeatureMeta("m", "r", 4, False, 16_000, 320)
    write(tmp_path / "1.h5", ["b"], [3], other)
    with pytest.raises(StoreError, match="2 kinds of features"):
        FeatureStore([tmp_path / "0.h5", tmp_path / "1.h5"])
    with h5py.File(tmp_path / "0.h5", "a") as file:
        file.attrs["complete"] = False
    with pytest.raises(StoreError, match="not a complete etaflow-features/1"):
        FeatureStore([tmp_path / "0.h5"])
    (tmp_path / "2.h5").write_bytes(b"no HDF5")
    with pytest.raises(StoreError, match="not a readable HDF5 file"):
        FeatureStore([tmp_path / "2.h5"])


def test_embeddings_keep_order_and_speaker_means_are_of_unit_vectors(tmp_path: Path) -> None:
    vectors = np.array([[3.0, 0.0], [0.0, 1.0], [5.0, 0.0]], np.float32)
    Embeddings(["b", "a", "c"], ["s2", "s2", "s1"], vectors, "e", "published").write(
        tmp_path / "e.h5"
    )
    again = Embeddings.read(tmp_path / "e.h5")
    np.testing.assert_array_equal(again.rows(["a", "b"]), vectors[[1, 0]])
    means = again.speaker_means()
    assert list(means) == ["s1", "s2"]
    np.testing.assert_allclose(means["s2"], [0.5**0.5, 0.5**0.5], rtol=1e-6)
    with h5py.File(tmp_path / "e.h5") as file:
        np.testing.assert_allclose(file["speaker_mean/embedding"][0], [1, 0])
    with pytest.raises(StoreError, match="not embedded, the first is x"):
        again.rows(["x"])
    with pytest.raises(StoreError, match="NaN or infinite"):
        Embeddings(["a"], ["s"], np.array([[np.nan]]), "e", "published").write(tmp_path / "n.h5")


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=5).astype(np.float32)


def embeddings_file(
    path: Path, names: list[str], speakers: list[str], encoder: str = "e", dim: int = 5
) -> Embeddings:
    with EmbeddingWriter(path, names, speakers, dim, encoder, "published") as writer:
        for seed in reversed(range(len(names))):
            writer.write(names[seed], vector(seed)[:dim])
    return Embeddings.read(path)


def test_embeddings_written_one_by_one_are_those_written_at_once(tmp_path: Path) -> None:
    names, speakers = ["b", "a", "ü"], ["s2", "s1", "s2"]
    written = embeddings_file(tmp_path / "one.h5", names, speakers)
    expected = np.stack([vector(seed) for seed in range(3)])
    np.testing.assert_array_equal(written.vectors, expected)
    assert (written.utterance_ids, written.speaker_ids) == (names, speakers)
    assert (written.encoder, written.weights) == ("e", "published")
    Embeddings(names, speakers, expected, "e", "published").write(tmp_path / "all.h5")
    with h5py.File(tmp_path / "one.h5") as one, h5py.File(tmp_path / "all.h5") as whole:
        paths: list[str] = []
        one.visit(paths.append)
        assert sorted(paths) == [
            "checksum",
            "embedding",
            "speaker_id",
            "speaker_mean",
            "speaker_mean/embedding",
            "speaker_mean/speaker_id",
            "utterance_id",
        ]
        for path in paths:
            if path != "speaker_mean":
                np.testing.assert_array_equal(one[path][()], whole[path][()])
        assert dict(one.attrs) | {"fingerprint": ""} == dict(whole.attrs) | {"fingerprint": ""}


KILLED_EMBEDDINGS = """
import os, signal, sys
from tests.unit.test_store import vector
from etaflow.store import EmbeddingWriter
names = [str(i) for i in range(20)]
with EmbeddingWriter(sys.argv[1], names, ["s"] * 20, 5, "e", "published") as writer:
    for done, name in enumerate(writer.remaining):
        writer.write(name, vector(int(name)))
        if done == 6:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_embeddings_go_on_to_the_same_bytes(tmp_path: Path) -> None:
    path, names = tmp_path / "a.h5", [str(i) for i in range(20)]
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", KILLED_EMBEDDINGS, path], cwd=ROOT, check=False
        )
        assert done.returncode == -signal.SIGKILL
        with pytest.raises(StoreError, match="not a complete etaflow-embeddings/1"):
            Embeddings.read(tmp_path / ".a.h5.part")
    with EmbeddingWriter(path, names, ["s"] * 20, 5, "e", "published") as writer:
        assert writer.remaining == names[14:]
        for name in writer.remaining:
            writer.write(name, vector(int(name)))
    embeddings_file(tmp_path / "b.h5", names, ["s"] * 20)
    assert path.read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_other_embeddings_start_over(tmp_path: Path) -> None:
    def remaining(speakers: list[str], *rest: object) -> list[str]:
        with (
            contextlib.suppress(StoreError),
            EmbeddingWriter(tmp_path / "0.h5", ["a", "b"], speakers, 5, *rest) as writer,
        ):
            left = writer.remaining
            writer.write(left[0], vector(0))
        return left

    announced = [["s", "s"], "e", "published", "one"]
    assert remaining(*announced) == ["a", "b"]
    (tmp_path / "kept").write_bytes((tmp_path / ".0.h5.part").read_bytes())
    assert remaining(*announced) == ["b"]
    for place, other in enumerate([["s", "t"], "f", "untrained", "two"]):
        (tmp_path / ".0.h5.part").write_bytes((tmp_path / "kept").read_bytes())
        assert remaining(*announced[:place], other, *announced[place + 1 :]) == ["a", "b"]


def test_a_flipped_bit_of_embeddings_is_an_error_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "0.h5"
    expected = embeddings_file(path, ["a", "b", "c"], ["s", "s", "t"])
    whole = path.read_bytes()
    with h5py.File(path) as file:
        start = file["embedding"].id.get_offset()
    generator = np.random.default_rng(0)
    vectors = range(start, start + 3 * 5 * 4)
    for place in {*vectors, *generator.choice(len(whole), 300, replace=False).tolist()}:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        if place in vectors:
            with pytest.raises(StoreError, match=r"0\.h5: damaged \(the embedding of [abc] fails"):
                Embeddings.read(path)
            continue
        with contextlib.suppress(StoreError):
            read = Embeddings.read(path)
            assert (read.utterance_ids, read.speaker_ids) == (["a", "b", "c"], ["s", "s", "t"])
            assert (read.encoder, read.weights) == ("e", "published")
            np.testing.assert_array_equal(read.vectors, expected.vectors)


@pytest.mark.parametrize("kind", ["byte order", "integer"])
def test_another_type_of_the_same_bytes_is_seen(tmp_path: Path, kind: str) -> None:
    """One flipped bit of a type's description leaves every byte of the data as it was."""
    for path, name, message in (
        (tmp_path / "0.h5", "embedding", "the embedding of a fails its checksum"),
        (tmp_path / "0.h5", "speaker_mean/embedding", "tables fail their checksum"),
        (tmp_path / "1.h5", "frame_sum", "tables fail their checksum"),
        (tmp_path / "2.h5", "frames", r"damaged \(frames of "),
    ):
        if name.startswith("frame"):
            write(path, ["a"], [3])
        else:
            embeddings_file(path, ["a"], ["s"])
        with h5py.File(path, "r+") as file:
            values = file[name][()]
            del file[name]
            integer = np.dtype(f"u{values.itemsize}")
            other = values.dtype.newbyteorder(">") if kind == "byte order" else integer
            file[name] = values.view(other)
        with pytest.raises(StoreError, match=message):
            FeatureStore([path]) if name.startswith("frame") else Embeddings.read(path)


def test_wrong_embeddings_are_refused(tmp_path: Path) -> None:
    def writer() -> EmbeddingWriter:
        return EmbeddingWriter(tmp_path / "0.h5", ["a"], ["s"], 5, "e", "published")

    with (
        pytest.raises(StoreError, match=r"a: embedding \(4,\), announced \(5,\)"),
        writer() as open_,
    ):
        open_.write("a", vector(0)[:4])
    for bad in (np.nan, np.inf):
        with pytest.raises(StoreError, match="a: NaN or infinite"), writer() as open_:
            open_.write("a", np.array([1, 2, 3, bad, 5], np.float32))
    with pytest.raises(StoreError, match=r"1 utterance\(s\) not written"), writer():
        pass
    assert not (tmp_path / "0.h5").exists()
    with pytest.raises(StoreError, match="stands twice"):
        EmbeddingWriter(tmp_path / "0.h5", ["a", "a"], ["s", "s"], 5, "e", "published")


def test_shards_of_embeddings_are_read_as_one_in_order_of_utterance(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.h5" for number in range(3)]
    embeddings_file(paths[0], ["b", "d"], ["s1", "s1"])
    empty = embeddings_file(paths[1], [], [])
    assert empty.vectors.shape == (0, 5)
    assert empty.speaker_means() == {}
    embeddings_file(paths[2], ["a", "c"], ["s0", "s2"])
    whole = Embeddings.read_shards(paths)
    assert whole.utterance_ids == ["a", "b", "c", "d"]
    assert whole.speaker_ids == ["s0", "s1", "s2", "s1"]
    np.testing.assert_array_equal(
        whole.vectors, np.stack([vector(0), vector(0), vector(1), vector(1)])
    )
    assert (whole.encoder, whole.weights) == ("e", "published")


def test_shards_of_embeddings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    one = tmp_path / "one.h5"
    embeddings_file(one, ["a", "b"], ["s", "s"])
    with pytest.raises(StoreError, match="utterance a is in two shards"):
        Embeddings.read_shards([one, one])
    embeddings_file(tmp_path / "other.h5", ["c"], ["t"], "f")
    with pytest.raises(StoreError, match="2 kinds of embeddings"):
        Embeddings.read_shards([one, tmp_path / "other.h5"])
    embeddings_file(tmp_path / "narrow.h5", ["c"], ["t"], dim=4)
    with pytest.raises(StoreError, match="2 kinds of embeddings"):
        Embeddings.read_shards([one, tmp_path / "narrow.h5"])


def test_gathering_embeddings_needs_no_torch(tmp_path: Path) -> None:
    embeddings_file(tmp_path / "0.h5", ["b"], ["s"])
    embeddings_file(tmp_path / "1.h5", ["a"], ["t"])
    program = (
        "import runpy, sys\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'transformers', 'pandas'} & set(sys.modules)\n"
    )
    script = str(ROOT / "scripts/gather_embeddings.py")
    arguments = [str(tmp_path / "0.h5"), str(tmp_path / "1.h5"), "--output", str(tmp_path / "e.h5")]
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = {[script, *arguments]}\n{program}"],
        cwd=ROOT,
        check=True,
    )
    assert Embeddings.read(tmp_path / "e.h5").utterance_ids == ["a", "b"]


@pytest.mark.parametrize("kind", ["features", "embeddings"])
def test_a_file_killed_before_it_got_its_name_gets_it_without_new_work(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def writer() -> FeatureWriter | EmbeddingWriter:
        if kind == "features":
            return FeatureWriter(tmp_path / "x.h5", META, ["a"], ["s"], [1], [3], 4)
        return EmbeddingWriter(tmp_path / "x.h5", ["a"], ["s"], 4, "e", "trained")

    def killed(_path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(resumable, "replace_with_part", killed)
    with pytest.raises(KeyboardInterrupt), writer() as first:
        first.write("a", features(0, 3) if kind == "features" else features(0, 1)[0])
    content = (tmp_path / ".x.h5.part").read_bytes()
    monkeypatch.undo()
    with writer() as second:
        assert second.remaining == []
    assert (tmp_path / "x.h5").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]


def test_two_jobs_do_not_write_one_file(tmp_path: Path) -> None:
    arguments = (META, ["a"], ["s"], [1], [3], 4)
    with FeatureWriter(tmp_path / "x.h5", *arguments) as first:
        with (
            pytest.raises(StoreError, match="another job is writing this file"),
            FeatureWriter(tmp_path / "x.h5", *arguments, fingerprint="other"),
        ):
            pass
        first.write("a", features(0, 3))
    found = FeatureStore([tmp_path / "x.h5"])["a"]
    np.testing.assert_allclose(found, features(0, 3), rtol=1e-3)


@pytest.mark.parametrize("bounds", [(-1, 2), (2, 1), (4, None), (0, -1)])
def test_a_range_outside_the_utterance_is_refused(
    tmp_path: Path, bounds: tuple[int, int | None]
) -> None:
    write(tmp_path / "0.h5", ["a", "b"], [3, 3])
    store = FeatureStore([tmp_path / "0.h5"])
    with pytest.raises(ValueError, match=r"b: frames .* of 3"):
        store.read("b", *bounds)
    with pytest.raises(StoreError, match="utterance c is in none of 1 shard"):
        store.read("c")


def test_embeddings_without_a_mean_direction_are_refused(tmp_path: Path) -> None:
    one = np.array([[1.0, 0], [-1.0, 0]], np.float32)
    with pytest.raises(StoreError, match="speaker s: its embeddings are zero or cancel"):
        Embeddings(["a", "b"], ["s", "s"], one, "e", "trained").write(tmp_path / "e.h5")
    with pytest.raises(StoreError, match="an utterance id stands twice"):
        Embeddings(["a", "a"], ["s", "t"], one, "e", "trained").write(tmp_path / "e.h5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["features", "embeddings"])
def test_a_full_disk_is_found_out_before_anything_is_written(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    writer: FeatureWriter | EmbeddingWriter
    if kind == "features":
        writer = FeatureWriter(tmp_path / "x.h5", META, ["a"], ["s"], [1], [3], 4)
    else:
        writer = EmbeddingWriter(tmp_path / "x.h5", ["a"], ["s"], 4, "e", "trained")
    with (
        pytest.raises(StoreError, match=r"no room for .*x\.h5: 16\.0 MB, 1\.0 MB are free"),
        writer,
    ):
        pass
    assert not list(tmp_path.iterdir())
