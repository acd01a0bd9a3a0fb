"""Mutated run folders, model files, studies and sweeps: each is read, or is an error of mlkd that names the file.

The mutations of case n depend on n only. `make test` has 200 cases, `make soak` 2,000.
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import signal
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file

from mlkd.analysis import group_runs, summary_table
from mlkd.errors import RunError, WeightsError
from mlkd.models import create_model, load_model
from mlkd.report.cards import run_cards
from mlkd.study import create_study
from mlkd.study.sweep import expand_tasks, load_sweep
from mlkd.training.run_files import Predictions
from mlkd.training.runs import Run, is_readable, iter_runs, open_run, summarize_runs

SECONDS = 20
"""The time limit of a case."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 3, 10**9, 2**70, 0.5, -1.5, 1e308, float("nan"), float("inf")),
    *("", "x", "0", "true", "../x", "/etc/passwd", "a\x1b[2J", "\ud800", "<b>", "x" * 3000),
    *([], [1], ["a", None], {}, {"a": 1}, {"": {}}, [[[[]]]]),
)

KEYS = ("x", "", "epochs", "pretrained", "word_vectors", "checkpoint_path", "plugins", "label")


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """The content cut off, or with a slice changed, removed, inserted or repeated."""
    start = rng.randrange(len(content) + 1)
    end = min(len(content), start + rng.choice((1, 4, 50, len(content))))
    insert = rng.choice((b"", b"\0", b"\xff\xfe", b"[" * 3000, rng.randbytes(8), content[start:end] * 2, b"\n", b"nan"))
    return content[:start] if rng.random() < 0.2 else content[:start] + insert + content[end:]


def mutate_value(content: Any, rng: random.Random) -> Any:
    """Nested values with one of them replaced, removed, added or renamed."""
    content = copy.deepcopy(content)
    places: list[tuple[Any, Any]] = []
    pending = [content]
    while pending:
        section = pending.pop()
        keys = list(section) if isinstance(section, dict) else range(len(section))
        for key in keys:
            places.append((section, key))
            if isinstance(section[key], dict | list):
                pending.append(section[key])
    if not places or rng.random() < 0.05:
        return rng.choice(VALUES)
    section, key = rng.choice(places)
    action = rng.choice(("replace", "replace", "replace", "remove", "add", "rename"))
    if action == "replace":
        section[key] = rng.choice(VALUES)
    elif action == "remove":
        del section[key]
    elif isinstance(section, list):
        section.append(rng.choice(VALUES))
    elif action == "add":
        section[rng.choice(("x", "", "epochs", "pretrained", "word_vectors", "checkpoint_path", "plugins"))] = (
            rng.choice(VALUES)
        )
    else:
        section["".join(sorted(str(key)))] = section.pop(key)
    return content


def mutate_json(text: str, rng: random.Random) -> bytes:
    if rng.random() < 0.4:
        return mutate_bytes(text.encode(), rng)
    content = json.loads(text)
    for _ in range(rng.choice((1, 1, 2, 5))):
        content = mutate_value(content, rng) if isinstance(content, dict | list) else content
    return json.dumps(content).encode()


@contextmanager
def time_limit(case: str) -> Iterator[None]:
    """Raises TimeoutError if the block hangs."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"{case} took more than {SECONDS} s")

    if os.name == "posix":
        signal.signal(signal.SIGALRM, stop)
        signal.alarm(SECONDS)
    try:
        yield
    finally:
        if os.name == "posix":
            signal.alarm(0)


# The kinds of files: each prepares a valid one, and reads a mutated one


class RunFolders:
    """The files of a finished run, read as `mlkd runs` and the index of a report do."""

    def __init__(self, folder: Path):
        self.root = folder / "runs"
        rng = np.random.default_rng(0)
        targets = (rng.random((12, 3)) < 0.5).astype(np.uint8)
        targets[0] = 1
        predictions = Predictions(
            np.array([f"i{n}" for n in range(12)]),
            targets,
            rng.normal(size=targets.shape).astype(np.float32),
            ("a", "b", "c"),
            np.zeros(targets.shape, bool),
        )
        for seed in range(2):
            training = {"role": "student", "backbone": "resnet8_cifar", "seed": seed, "epochs": 2, "lr": 0.1}
            data = {"name": "toy", "splits": {"test": "abc"}}
            run = open_run(self.root, {"method": "l2d", "settings": {}, "data": data, "training": training})
            row = {"lr": 0.1, "bce": 0.5, "val_mAP": 0.5, "selected": 1, "seconds": 1.0, "images_per_second": 9.0}
            run.write_history([{"epoch": n, **row} for n in (1, 2)])
            for split in ("val", "test"):
                run.write_predictions(split, predictions)
            scores = {"val": {"mAP": 0.5}, "test": {"mAP": 0.25}}
            run.finish({"select": "best", "selected_epoch": 1, "parameters": 10, "seconds": 1.5, **scores})
            run.write_json("compute_format.json", {"precision": "bf16", "channels_last": True, "images_per_second": {}})
            rows = [{"step": 0, "term": "bce", "class": "a", "norm": 1.0, "fraction": 1.0, "cosine": None}]
            run.write_gradients(1, pd.DataFrame(rows))
        self.paths = sorted(self.root.iterdir())
        self.kept = {path: path.read_bytes() for path in self.paths[0].rglob("*") if path.is_file()}

    def mutate(self, rng: random.Random) -> Path:
        for path, content in self.kept.items():
            path.write_bytes(content)
        path = rng.choice([path for path in self.kept if path.suffix in (".json", ".csv", ".npz")])
        if path.suffix == ".json":
            path.write_bytes(mutate_json(path.read_text(), rng))
        else:
            path.write_bytes(mutate_bytes(path.read_bytes(), rng))
        return path

    def read(self, path: Path) -> None:
        summaries = summarize_runs(self.root)
        assert self.paths[1].name in [row["run"] for row in summaries]  # a damaged run does not hide the other
        runs = [run for run in iter_runs(self.root) if is_readable(run, predictions=True)]
        for title, group in group_runs(runs).items():
            try:
                run_cards(group)
                summary_table({title: group})
            except ValueError as error:
                if isinstance(error, RunError) or "no positive at all" not in str(error):  # as mutated labels may have
                    raise
        run = Run(self.paths[0])
        for read in (
            lambda: run.config,
            lambda: run.metrics,
            lambda: run.history,
            lambda: run.costs,
            lambda: run.gradients,
            lambda: run.compute_format,
            lambda: run.predictions("test"),
            lambda: run.predictions("val"),
        ):
            read()

    errors = (RunError,)


class ModelFiles:
    def __init__(self, folder: Path):
        self.path = folder / "model.safetensors"
        settings = {"embed_dim": 8, "head_settings": {"layers": 1, "word_vectors": 4}, "widths": [8, 8, 8]}
        model = create_model("resnet8_cifar", ("a", "b"), "transformer", image_size=32, **settings)
        self.tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
        self.metadata = {"settings": json.dumps(model.settings), **model.metadata.to_texts()}
        save_file(self.tensors, self.path, self.metadata)
        self.kept = self.path.read_bytes()

    def mutate(self, rng: random.Random) -> Path:
        if rng.random() < 0.3:
            self.path.write_bytes(mutate_bytes(self.kept[: rng.choice((3000, None))], rng))
            return self.path
        metadata, tensors = dict(self.metadata), dict(self.tensors)
        if rng.random() < 0.8:
            name = rng.choice(["settings", "settings", *metadata])
            metadata[name] = mutate_json(metadata[name], rng).decode(errors="replace")
        else:
            name = rng.choice(list(tensors))
            tensors[name] = rng.choice(
                (torch.ones(3), tensors[name] * float("nan"), tensors[name].half(), torch.ones(0), torch.ones(()))
            )
        save_file(tensors, self.path, metadata)
        return self.path

    def read(self, path: Path) -> None:
        load_model(path)(torch.zeros(1, 3, 32, 32))

    errors = (WeightsError,)


STUDY = """
base: smoke
data: scenes
teacher: {epochs: 1, backbone: resnet20_cifar, backbone_settings: {stem_stride: 2}}
student: {epochs: 1, lr: 0.001, augmentations: [flip, crop], select: best, head_settings: {}}
methods: {l2d: {lambda_cd: 1.0}, mdkd: {lambda_bd: {2: 1.0, 3: 0.5}}}
label_subsets: {epochs: 2}
seeds: [0, 1]
max_images: 5
notes: [a note]
"""
SWEEP = """
name: grid
study: [smoke]
data: [scenes]
methods: [vanilla, l2d]
seeds: [0, 1]
grid: {student.lr: [0.1, 0.01], l2d.lambda_cd: [1.0]}
table: {caption: a table, metrics: [mAP], reported: {l2d: {mAP: 50.0}}}
cpus: 2
"""


class YamlFiles:
    text = ""

    def __init__(self, folder: Path):
        self.path = folder / f"{type(self).__name__.lower()}.yml"

    def mutate(self, rng: random.Random) -> Path:
        if rng.random() < 0.5:
            self.path.write_bytes(mutate_bytes(self.text.encode(), rng))
        else:
            content = yaml.safe_load(self.text)
            for _ in range(rng.choice((1, 1, 2))):
                content = mutate_value(content, rng) if isinstance(content, dict | list) else content
            self.path.write_text(yaml.safe_dump(content), encoding="utf-8", errors="surrogatepass")
        return self.path

    errors = (ValueError,)


class Studies(YamlFiles):
    text = STUDY

    def read(self, path: Path) -> None:
        create_study(str(path)).to_yaml()


class Sweeps(YamlFiles):
    text = SWEEP

    def read(self, path: Path) -> None:
        sweep = load_sweep(path)
        try:
            expand_tasks(sweep)
        except ValueError as error:
            if not str(error).startswith(f"The sweep {sweep.name!r}: "):
                raise


KINDS: tuple[type, ...] = (RunFolders, ModelFiles, Studies, Sweeps)


@pytest.fixture(autouse=True)
def _no_warnings_of_numbers() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def run_cases(folder: Path, numbers: range) -> None:
    """Runs the cases of each kind, prints what they ended in and fails with the list of those that failed."""
    failures, outcomes = [], Counter[str]()
    for kind in KINDS:
        name = kind.__name__
        (folder / name).mkdir(parents=True)
        files = kind(folder / name)
        for number in numbers:
            path = files.mutate(random.Random(f"{name} {number}"))
            try:
                with time_limit(f"{name} {number}"):
                    files.read(path)
                outcomes[f"{name}: read"] += 1
            except files.errors as error:
                outcomes[f"{name}: {type(error).__name__}"] += 1
                if str(path) not in str(error):
                    failures.append(f"{name} {number}: does not name the file: {error}")
            except Exception as error:
                failures.append(f"{name} {number}: {type(error).__name__}: {error}")
    print(
        f"\n{sum(outcomes.values()) + len(failures)} cases, {len(failures)} failures: {dict(sorted(outcomes.items()))}"
    )
    shutil.rmtree(folder)
    assert not failures, "\n".join(failure[:400] for failure in failures)


def test_mutated_files(tmp_path: Path) -> None:
    run_cases(tmp_path / "cases", range(50))


@pytest.mark.soak
def test_many_mutated_files(tmp_path: Path) -> None:
    run_cases(tmp_path / "cases", range(50, 550))
