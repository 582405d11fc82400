"""Payload files: the safetensors format both ways, and everything in a header that is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from mammofed_shared.errors import PayloadError
from mammofed_shared.protocol import payload as payload_module
from mammofed_shared.protocol.payload import Payload, PayloadWriter, reference_of, write_payload

DTYPES = [np.dtype(name) for name in ("float64", "float32", "float16", "int64", "int32", "uint8")]
tensors = st.dictionaries(
    st.text("abcdefgh.0123_é", min_size=1, max_size=12),
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
    ),
    max_size=6,
)
some = settings(
    max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _bytes_of(arrays: Mapping[str, NDArray[Any]]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (str(array.dtype), array.shape, array.tobytes()) for name, array in arrays.items()}


@some
@given(tensors)
def test_what_we_write_the_safetensors_library_reads(tmp_path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    reference = write_payload(tmp_path / "ours", arrays, {"loss": 0.5})
    assert _bytes_of(load_file(tmp_path / "ours")) == _bytes_of(arrays)
    assert reference == reference_of(tmp_path / "ours")
    with safe_open(tmp_path / "ours", framework="numpy") as file:
        assert file.metadata() == {"numbers": '{"loss": 0.5}'}


@some
@given(tensors)
def test_what_the_safetensors_library_writes_we_read(tmp_path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    save_file(arrays, tmp_path / "theirs")
    with Payload(tmp_path / "theirs") as payload:
        assert _bytes_of({name: payload[name] for name in payload}) == _bytes_of(arrays)
        assert payload.numbers == {}


@some
@given(tensors, st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False), max_size=4))
def test_what_we_write_we_read(tmp_path: Path, arrays: dict[str, NDArray[Any]], numbers: dict[str, float]) -> None:
    write_payload(tmp_path / "ours", arrays, numbers)
    with Payload(tmp_path / "ours") as payload:
        assert _bytes_of({name: payload[name] for name in payload}) == _bytes_of(arrays)
        assert payload.numbers == numbers


def test_equal_tensors_give_equal_bytes_in_whatever_order_they_are_given(tmp_path: Path) -> None:
    one, two = np.arange(3, dtype=np.float32), np.arange(5, dtype=np.int64)
    first = write_payload(tmp_path / "first", {"a": one, "b": two})
    second = write_payload(tmp_path / "second", {"b": two, "a": one})
    assert first == second


@pytest.mark.parametrize("array", [np.arange(6, dtype=">f4").reshape(2, 3), np.arange(6, dtype=np.float32)[::-2]])
def test_byte_order_and_strides_do_not_change_values(tmp_path: Path, array: NDArray[Any]) -> None:
    write_payload(tmp_path / "file", {"a": array})
    with Payload(tmp_path / "file") as payload:
        assert payload["a"].tolist() == array.tolist()


def test_bfloat16_is_given_as_its_bits(tmp_path: Path) -> None:
    one_and_minus_two = np.array([0x3F80, 0xC000], dtype="<u2")
    header = {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    with PayloadWriter(tmp_path / "file", header) as writer:
        writer.write(one_and_minus_two)
    with Payload(tmp_path / "file") as payload:
        assert payload["a"].dtype == np.uint16
        assert payload["a"].tolist() == [0x3F80, 0xC000]
        as_float = (payload["a"].astype(np.uint32) << 16).view(np.float32)
        assert as_float.tolist() == [1.0, -2.0]


def test_a_view_cannot_change_the_file(tmp_path: Path) -> None:
    write_payload(tmp_path / "file", {"a": np.zeros(2, np.float32)})
    with Payload(tmp_path / "file") as payload, pytest.raises(ValueError, match="read-only"):
        payload["a"][0] = 1


def test_a_view_that_is_still_held_outlives_the_payload(tmp_path: Path) -> None:
    write_payload(tmp_path / "file", {"a": np.ones(2, np.float32)})
    with Payload(tmp_path / "file") as payload:
        view = payload["a"]
    assert view.tolist() == [1, 1]


# ── written whole or not at all ─────────────────────────────────────────────────────────────────────────────────


class Killed(Exception):
    """Stands for a kill at the line where it is raised."""


@pytest.mark.parametrize("moment", ["os.fsync", "Path.replace"])
def test_a_kill_before_the_rename_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    write_payload(tmp_path / "file", {"a": np.zeros(4, np.float32)})
    before = (tmp_path / "file").read_bytes()

    def die(*_: object) -> None:
        raise Killed

    owner, name = (payload_module.os, "fsync") if moment == "os.fsync" else (Path, "replace")
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, die)
        with pytest.raises(Killed):
            write_payload(tmp_path / "file", {"a": np.ones(4, np.float32)})
    assert (tmp_path / "file").read_bytes() == before
    write_payload(tmp_path / "file", {"a": np.ones(4, np.float32)})
    with Payload(tmp_path / "file") as payload:
        assert payload["a"].tolist() == [1] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "what the kill left is used up by the next writing"


def test_an_error_of_the_caller_leaves_nothing(tmp_path: Path) -> None:
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    with pytest.raises(Killed), PayloadWriter(tmp_path / "file", header) as writer:
        writer.write(np.zeros(1, np.float32))
        raise Killed
    assert list(tmp_path.iterdir()) == []


# ── refused ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _tensor(start: object, end: object, shape: object = (2,), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def _file(path: Path, header: object, data_bytes: int) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * data_bytes)
    return path


def _numbers(value: object) -> dict[str, object]:
    return {"__metadata__": {"numbers": value if isinstance(value, str) else json.dumps(value)}}


def test_a_hand_made_file_that_is_right_is_read(tmp_path: Path) -> None:
    header = {**_numbers({"loss": 1}), "a": _tensor(0, 8), "b": _tensor(8, 16)}
    with Payload(_file(tmp_path / "file", header, 16)) as payload:
        assert sorted(payload) == ["a", "b"] and payload.numbers == {"loss": 1.0}


@pytest.mark.parametrize(
    ("header", "data_bytes", "said"),
    [
        pytest.param({"a": _tensor(0, 8), "b": _tensor(4, 12)}, 12, "overlap or leave gaps", id="overlap"),
        pytest.param({"a": _tensor(0, 8), "b": _tensor(0, 8)}, 8, "overlap or leave gaps", id="same bytes twice"),
        pytest.param({"a": _tensor(0, 8), "b": _tensor(12, 20)}, 20, "overlap or leave gaps", id="gap"),
        pytest.param({"a": _tensor(4, 12)}, 12, "overlap or leave gaps", id="gap at the beginning"),
        pytest.param({"a": _tensor(0, 8)}, 12, "cover 8 bytes of 12", id="hidden bytes at the end"),
        pytest.param({"a": _tensor(0, 8)}, 4, "cover 8 bytes of 4", id="overrun"),
        pytest.param({"a": _tensor(-8, 0)}, 0, "overlap or leave gaps", id="before the data"),
        pytest.param({"a": _tensor(0, 8.0)}, 8, "do not match its shape", id="an offset that is no integer"),
        pytest.param({"a": _tensor(0, 8, (3,))}, 8, "do not match its shape", id="shape and bytes differ"),
        pytest.param({"a": _tensor(0, 8, (-1, -2))}, 8, "not allowed", id="negative shape"),
        pytest.param({"a": _tensor(0, 8, (True, 2))}, 8, "not allowed", id="a shape that is no number"),
        pytest.param({"a": _tensor(0, 2, (2,), "BOOL")}, 2, "not allowed", id="unknown dtype"),
        pytest.param({"a": _tensor(0, 8) | {"note": "text"}}, 8, "dtype, shape and data_offsets only", id="a note"),
        pytest.param({"a": {"dtype": "F32", "shape": [2]}}, 8, "only", id="no offsets"),
        pytest.param(b'{"a":1,"a":{}}', 0, "twice", id="a name twice, whose first value nobody would see"),
        pytest.param(_numbers({"name": "Jane"}), 0, "numbers may hold numbers only", id="text as a number"),
        pytest.param(_numbers({"flag": True}), 0, "numbers may hold numbers only", id="a truth value as a number"),
        pytest.param(_numbers({"list": [1]}), 0, "numbers may hold numbers only", id="a list as a number"),
        pytest.param(_numbers("[1]"), 0, "payload header", id="numbers that are a list"),
        pytest.param(_numbers('{"a": 1, "a": 2}'), 0, "twice", id="a number twice"),
        pytest.param(_numbers('{"loss": NaN}'), 0, "finite", id="NaN"),
        pytest.param(_numbers('{"loss": Infinity}'), 0, "finite", id="infinity"),
        pytest.param(_numbers('{"loss": 1' + "0" * 400 + "}"), 0, "payload header", id="a number beyond float64"),
        pytest.param({"__metadata__": {"note": "text"}}, 0, "metadata may hold numbers only", id="other metadata"),
        pytest.param(b"[]", 0, "payload header", id="not an object"),
        pytest.param(b"{", 0, "payload header", id="not JSON"),
        pytest.param(b"\xff\xfe", 0, "payload header", id="not text"),
        pytest.param(b"[" * 200_000, 0, "payload header", id="deeply nested"),
        pytest.param({"a": 3}, 0, "payload header", id="a tensor that is a number"),
    ],
)
def test_a_header_that_is_not_right_is_refused(tmp_path: Path, header: object, data_bytes: int, said: str) -> None:
    path = _file(tmp_path / "file", header, data_bytes)
    with pytest.raises(PayloadError, match=said):
        Payload(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 7, (9).to_bytes(8, "little") + b"{}", b"\xff" * 16])
def test_a_file_that_ends_in_its_header_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(PayloadError, match="beyond the file or the limit"):
        Payload(tmp_path / "file")


def test_a_huge_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    length = payload_module.MAX_HEADER_BYTES + 1
    with (tmp_path / "file").open("wb") as file:
        file.write(length.to_bytes(8, "little"))
        file.truncate(8 + length)  # sparse: no disk is used
    with pytest.raises(PayloadError, match="beyond the file or the limit"):
        Payload(tmp_path / "file")


@pytest.mark.parametrize("num_values", [1, 3, 7, 100])
def test_blocks_give_every_value_in_order(tmp_path: Path, num_values: int) -> None:
    arrays = {"a": np.arange(7, dtype=np.float64).reshape(7, 1), "b": np.arange(20, 25, dtype=np.uint8)}
    write_payload(tmp_path / "ours", {**arrays, "none": np.zeros(0, np.float32)})
    with Payload(tmp_path / "ours") as payload:
        for name, array in arrays.items():
            blocks = [block.copy() for block in payload.blocks(name, num_values)]
            assert max(block.size for block in blocks) <= num_values
            assert np.concatenate(blocks).tolist() == array.reshape(-1).tolist()
        assert list(payload.blocks("none", num_values)) == []


def test_reading_by_blocks_leaves_no_pages_of_the_file_behind(tmp_path: Path) -> None:
    def resident() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile:"))

    write_payload(tmp_path / "ours", {"large": np.ones(2**22, np.float32)})
    with Payload(tmp_path / "ours") as payload:
        before = resident()
        assert sum(float(block.sum()) for block in payload.blocks("large", 2**18)) == 2**22
        assert resident() - before < 4 * 2**20, "of 16 MiB"
