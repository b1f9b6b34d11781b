"""Reads ncnn's model files: layers from a text .param, weights from its .bin.

Formats as in ncnn's wiki pages "param and model file structure" and in its ``modelbin.cpp``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from srpipe.errors import ModelError
from srpipe.io.small_files import read_small

Number = int | float
Values = npt.NDArray[np.float32]

_MAGIC = 7767517
_FLOAT16_FLAG = 0x01306B47
_INT8_FLAG = 0x000D4B38
_WORD_BYTES = 4
_MAX_BYTES = 2**31  # as much as the ONNX model can take that becomes of it
_INT32, _FLOAT32 = np.iinfo(np.int32), np.finfo(np.float32)
# Keys at or below it hold arrays; the array's own key is what lies beyond.
_FIRST_ARRAY_KEY = -23300


@dataclass(frozen=True, slots=True)
class Layer:
    """One line of a .param file."""

    kind: str
    """The layer's type: Convolution, Interp, …"""
    name: str
    inputs: tuple[str, ...]
    """Names of the blobs it reads."""
    outputs: tuple[str, ...]
    """Names of the blobs it makes."""
    params: Mapping[int, Number | tuple[Number, ...]]

    def __str__(self) -> str:
        return f"{self.kind} layer {self.name!r}"

    def number(self, key: int, default: float = 0.0) -> float:
        """A parameter that is one number.

        Raises:
            ModelError: it is an array.
        """
        value = self.params.get(key, default)
        if isinstance(value, tuple):
            raise ModelError(f"{self} has an array as parameter {key}, where one number belongs.")
        return float(value)

    def integer(self, key: int, default: int = 0) -> int:
        """A parameter that is a whole number.

        Raises:
            ModelError: it is none.
        """
        value = self.number(key, default)
        if value != int(value) or abs(value) > _INT32.max:
            raise ModelError(f"{self} has {value} as parameter {key}: it must be a whole number.")
        return int(value)

    def array(self, key: int) -> tuple[Number, ...]:
        """A parameter that is an array; empty where it is not given.

        Raises:
            ModelError: it is one number.
        """
        value = self.params.get(key, ())
        if not isinstance(value, tuple):
            raise ModelError(f"{self} has {value} as parameter {key}, where an array belongs.")
        return value


def read_param(path: Path) -> list[Layer]:
    """The layers of a text .param file, in order; lines may end in CR LF.

    Raises:
        ModelError: missing, binary, damaged, or no .param file; the message names the line.
    """
    try:
        content = read_small(path, _MAX_BYTES)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): check the path.") from None
    if content[:_WORD_BYTES] == _MAGIC.to_bytes(_WORD_BYTES, "little"):
        raise ModelError(
            f"{path} is a binary .param file, which has no names: use the text .param it was made from."
        )
    try:
        text = content.decode().splitlines()
    except UnicodeDecodeError:
        raise ModelError(f"{path} is no ncnn .param file: it is not text.") from None
    lines = [(number, line) for number, line in enumerate(text, start=1) if line.strip()]
    if not lines or lines[0][1].strip() != str(_MAGIC):
        raise ModelError(f"{path} is no ncnn .param file: it must begin with {_MAGIC}.")
    layers = [_parse_layer(path, number, line) for number, line in lines[2:]]
    counts = lines[1][1].split() if len(lines) > 1 else []
    if not layers or len(counts) != 2 or counts[0] != str(len(layers)):
        told = counts[0] if counts else "no"
        raise ModelError(
            f"{path} is damaged: its second line tells of {told} layers, {len(layers)} follow."
        )
    return layers


def _parse_layer(path: Path, number: int, line: str) -> Layer:
    words = line.split()
    try:
        kind, name = words[:2]
        inputs_end = 4 + _count(words[2])
        outputs_end = inputs_end + _count(words[3])
        if len(words) < outputs_end:
            raise ValueError
        params = dict(_parse_param(word) for word in words[outputs_end:])
    except (ValueError, IndexError):
        raise ModelError(f"{path} is damaged: line {number} is {line[:200]!r}.") from None
    inputs, outputs = words[4:inputs_end], words[inputs_end:outputs_end]
    return Layer(kind, name, tuple(inputs), tuple(outputs), params)


def _count(word: str) -> int:
    if not word.isascii() or not word.isdigit():
        raise ValueError
    return int(word)


def _parse_param(word: str) -> tuple[int, Number | tuple[Number, ...]]:
    key_word, _, value_word = word.partition("=")
    key = int(key_word)
    if key > _FIRST_ARRAY_KEY:
        return key, _parse_number(value_word)
    length, *values = value_word.split(",")
    if int(length) != len(values):
        raise ValueError
    return _FIRST_ARRAY_KEY - key, tuple(_parse_number(value) for value in values)


def _parse_number(word: str) -> Number:
    """A number that ncnn can hold: an int32 or a float32."""
    try:
        value: Number = int(word)
    except ValueError:
        value = float(word)
    most = _INT32.max if isinstance(value, int) else float(_FLOAT32.max)
    if not abs(value) <= most:
        raise ValueError
    return value


class Weights:
    """The numbers of a .bin file, taken out in the order of the layers that own them."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            ModelError: it cannot be read.
        """
        try:
            self._content = read_small(path, _MAX_BYTES)
        except OSError as error:
            raise ModelError(f"{path} cannot be read ({error.strerror}): check the path.") from None
        self._path = path
        self._position = 0

    def flagged(self, count: int) -> Values:
        """``count`` numbers behind a flag word that tells their type: the weights of a layer.

        Raises:
            ModelError: the file ends before, or they are quantised.
        """
        flag = int.from_bytes(self._take(_WORD_BYTES), "little")
        if flag == 0:
            return self.raw(count)
        if flag == _FLOAT16_FLAG:
            padded_bytes = -(-2 * count // _WORD_BYTES) * _WORD_BYTES
            values = np.frombuffer(self._take(padded_bytes), "<f2")[:count]
            return values.astype(np.float32)
        kind = "int8" if flag == _INT8_FLAG else "quantised"
        raise ModelError(
            f"{self._path} has {kind} weights (flag {flag:#010x} at byte "
            f"{self._position - _WORD_BYTES}), or does not belong to this .param file: "
            "use the float32 or float16 model."
        )

    def raw(self, count: int) -> Values:
        """``count`` float32 numbers: a layer's bias, or slopes.

        Raises:
            ModelError: the file ends before.
        """
        return np.frombuffer(self._take(4 * count), "<f4").astype(np.float32)

    def finish(self) -> None:
        """Check that nothing is left.

        Raises:
            ModelError: the file goes on.
        """
        left = len(self._content) - self._position
        if left:
            raise ModelError(
                f"{self._path} holds {left} bytes more than its .param file asks for: "
                "they do not belong together."
            )

    def _take(self, count_bytes: int) -> bytes:
        end = self._position + count_bytes
        if count_bytes < 0 or end > len(self._content):
            raise ModelError(
                f"{self._path} is too short: {count_bytes} bytes are wanted at byte "
                f"{self._position} of {len(self._content)}. It is damaged, or belongs to another "
                ".param file."
            )
        taken = self._content[self._position : end]
        self._position = end
        return taken
