"""What is kept in the user's cache, and what happens where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from srpipe.io.cache import cache_folder, read_cached_json, write_cached, write_cached_json


def test_values_are_kept_and_damage_is_none(cache: Path) -> None:
    assert read_cached_json("things", "a") is None
    write_cached_json("things", "a", {"b": [1, 2]})
    assert read_cached_json("things", "a") == {"b": [1, 2]}
    (cache / "things" / "a.json").write_bytes(b'{"b": [1')
    assert read_cached_json("things", "a") is None
    assert not list((cache / "things").iterdir())


def test_nothing_is_kept_where_nothing_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    monkeypatch.setenv("SRPIPE_CACHE", str(file))
    assert cache_folder("things") is None
    assert write_cached("things", "a", b"x") is None
    write_cached_json("things", "a", 1)
    assert read_cached_json("things", "a") is None


def test_the_folder_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SRPIPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("things") == tmp_path / "srpipe" / "things"
