"""What the documentation tells people to type is run here, page by page and in order.

Commands are fenced as ``sh`` and Python as ``python``; each page has a folder of its own, with the
files that its examples speak of, and Python has ``import srpipe`` before it. What cannot be run says
why in a comment before it: ``<!-- not run: … -->``.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from srpipe.cli.main import main
from tests.conftest import photograph_pixels, write_pixels
from tests.onnx_models import conv_model
from tests.processes import PATIENCE_S

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = ("sh", "python", "text", "json", "dockerfile")
BLOCK = re.compile(
    r"(?P<why><!-- not run: (?P<reason>[^>]+) -->\n+)?"
    r"(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)\n *```",
    re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    reason: str | None


def blocks(page: Path) -> Iterator[Block]:
    for match in BLOCK.finditer(page.read_text()):
        yield Block(match["language"], match["text"], match["reason"])


def commands(text: str) -> list[str]:
    joined = re.sub(r"\\\n\s*", "", text)
    return [line for line in joined.splitlines() if line.strip() and line.strip()[0] != "#"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files that examples speak of, small."""
    for name in ("scan.tif", "photo.jpg", "a.tif", "b.tif", "scan.png"):
        write_pixels(tmp_path / name, photograph_pixels(120, 160))
    (tmp_path / "scans" / "box1").mkdir(parents=True)
    for name in ("p1.tif", "p2.tif", "box1/p3.tif"):
        write_pixels(tmp_path / "scans" / name, photograph_pixels(64, 80))
    conv_model(tmp_path / "model.onnx", scale=2)
    links = {"tests": ROOT / "tests", "models": ROOT / "models", "scripts": ROOT / "scripts"}
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    return tmp_path


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    scripts = tmp_path_factory.mktemp("bin")
    command = scripts / "srpipe"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m srpipe "$@"\n')
    command.chmod(0o755)
    return os.environ | {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        # What pages measure must not decide for other tests.
        "SRPIPE_CACHE": str(tmp_path_factory.mktemp("cache")),
    }


def run_block(block: Block, folder: Path, environment: dict[str, str]) -> None:
    if block.language == "python":
        with typed_in(folder, environment):
            exec(f"import srpipe\n{block.text}", {"__name__": "__main__"})
        return
    for command in commands(block.text):
        if command.startswith("srpipe ") and not re.search(r"[|&;<>$`*?{}()]|--engine", command):
            run_here(command, folder, environment)
        else:
            run(["bash", "-ec", command], folder, environment)


def run(arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, f"{arguments[-1]}\n{done.stdout}{done.stderr}"


@contextmanager
def typed_in(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """What needs no shell is run here: to start Python anew takes longer than most examples do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SRPIPE_CACHE", environment["SRPIPE_CACHE"])
        yield


def run_here(command: str, folder: Path, environment: dict[str, str]) -> None:
    with typed_in(folder, environment):
        assert main(shlex.split(command, comments=True)[1:]) == 0, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_says_can_be_typed(
    page: Path, folder: Path, environment: dict[str, str]
) -> None:
    for block in blocks(page):
        if block.reason is None and block.language in ("sh", "python"):
            run_block(block, folder, environment)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_nothing_that_can_be_typed_is_hidden(page: Path) -> None:
    """In an indented block, or in a fence of an unknown language, it would not be run."""
    text = page.read_text()
    assert {block.language for block in blocks(page)} <= set(LANGUAGES)
    outside = BLOCK.sub("", text)
    assert not re.search(r"(?m)^ {4,}(srpipe|scripts/\w+|pip|import srpipe)\b", outside)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from reference.page import reference; print(reference(), end='')"],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'scripts'}{os.pathsep}{ROOT}"},
        capture_output=True, text=True, check=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.stdout == (ROOT / "docs" / "reference.md").read_text(), "run scripts/make-reference"
