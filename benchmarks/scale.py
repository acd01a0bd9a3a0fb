"""How time and memory grow with the data: `make bench SCALE=1`.

Each size runs in a separate process. Peak memory is the highest resident memory minus that after the imports. The
generation of the synthetic data is not timed, but its memory is included.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from mlkd.data import ImageFiles, MultiLabelData
from mlkd.data.image_cache import decoded_images
from mlkd.files import atomic_write
from mlkd.graphs import cooccurrence, partition
from mlkd.metrics import evaluate
from mlkd.training.config import Config
from mlkd.training.runs import open_run, summarize_runs

FIGURE = Path(__file__).parents[1] / "figures" / "scale.png"
COMMUNITIES = 10


def labels(n: int, q: int) -> sparse.csr_array:
    """Targets (n, q) uint8, three labels per image on average. Most belong to the image's community; within a
    community, the label of rank r has frequency 1 / r."""
    rng = np.random.default_rng(0)
    count = 1 + rng.poisson(2, n)
    rows = np.repeat(np.arange(n), count)
    community = np.repeat(rng.integers(COMMUNITIES, size=n), count)
    outside = rng.random(len(rows)) < 0.2
    community[outside] = rng.integers(COMMUNITIES, size=outside.sum())
    frequency = 1 / np.arange(1, q // COMMUNITIES + 1)
    rank = rng.choice(len(frequency), size=len(rows), p=frequency / frequency.sum())
    targets = sparse.csr_array((np.ones(len(rows), np.uint8), (rows, COMMUNITIES * rank + community)), shape=(n, q))
    targets.data[:] = 1
    return targets


class Seconds(NamedTuple):
    """Wall-clock time, and CPU time, which other processes disturb less."""

    wall: float
    cpu: float


def timed(work: Callable[[], Any]) -> tuple[Seconds, Any]:
    """The times of one call, its child processes included, and its result."""
    before = os.times()
    result = work()
    after = os.times()
    return Seconds(after.elapsed - before.elapsed, sum(after[:4]) - sum(before[:4])), result


def graph(n: int, _: str, strategy: str) -> tuple[Seconds, str]:
    """Co-occurrence counts of n / 100 labels in n images and their partition into 10 label subsets."""
    targets = labels(n, n // 100)
    seconds, subsets = timed(lambda: partition(cooccurrence(targets), COMMUNITIES, strategy))
    agreement = adjusted_rand_score(subsets, np.arange(len(subsets)) % COMMUNITIES)
    return seconds, f"adjusted Rand index with the communities {agreement:.2f}"


def metrics(n: int, _: str, bootstrap: int) -> tuple[Seconds, str]:
    """All metrics of n images and 80 classes with the protocol threshold(0.5)."""
    targets = labels(n, 80).toarray()
    scores = np.random.default_rng(1).standard_normal(targets.shape, dtype=np.float32)
    scores += 3 * targets.astype(np.float32) - 2
    seconds, results = timed(lambda: evaluate(targets, scores, bootstrap=bootstrap))
    return seconds, f"mAP {100 * results['mAP']:.1f} %"


def images(n: int, folder: str) -> tuple[Seconds, str]:
    """The decoded-image cache of n JPEG files of 64 x 64 pixels; 500 different ones, linked under n names."""
    os.environ["MLKD_CACHE"] = f"{folder}/cache"
    rng = np.random.default_rng(0)
    names = [f"{i:06d}.jpg" for i in range(n)]
    for i, name in enumerate(names):
        if i < 500:
            small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(small).resize((64, 64)).save(f"{folder}/{name}", quality=90)
        else:
            os.link(f"{folder}/{names[i % 500]}", f"{folder}/{name}")
    files = ImageFiles(folder, names)
    data = MultiLabelData("bench", "train", files, np.ones((n, 1), np.uint8), ("any",), tuple(names))
    seconds, _ = timed(lambda: decoded_images(data, 64))
    reopening, array = timed(lambda: decoded_images(data, 64))
    batches = [np.sort(rng.integers(n, size=64)) for _ in range(500)]
    reading, _ = timed(lambda: [array[batch].shape for batch in batches])
    return (
        seconds,
        f"reopened in {reopening.wall:.2f} s; random batches of 64: {64 * 500 / reading.wall:,.0f} images per second",
    )


def runs(n: int, folder: str) -> tuple[Seconds, str]:
    """The command `mlkd runs` with n runs, a tenth of them unfinished; the memory is that of the list."""
    training = Config().as_dict()
    run = open_run(folder, {"method": "l2d", "settings": {}, "data": {"name": "bench"}, "training": training})
    for seed in range(1, n):
        path = Path(folder) / f"l2d-student-resnet34-s{seed}-bench"
        path.mkdir()
        shutil.copy(run.path / "config.json", path)
        (path / "history.csv").write_text("epoch,lr,bce,val_mAP\n" + 40 * "1,0.1,0.2,0.3\n")
        if seed % 10:
            (path / "metrics.json").write_text('{"best_epoch": 9, "val": {"mAP": 0.5}, "test": {"mAP": 0.4}}')
    command = [sys.executable, "-m", "mlkd", "runs", folder]
    seconds, _ = timed(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True))
    return seconds, f"{len(summarize_runs(folder)):,} lines"


class Growth(NamedTuple):
    """What is measured, at which sizes N, and the function that measures it: (N, an empty folder) -> times, a note."""

    title: str
    sizes: tuple[int, ...]
    measure: Callable[[int, str], tuple[Seconds, str]]


MANY = (10**4, 10**5, 10**6)
GROWTHS = {
    "cgp": Growth("co-occurrence and CGP partition, q = N / 100 labels", MANY, partial(graph, strategy="cgp")),
    "dgp": Growth("co-occurrence and DGP partition, q = N / 100 labels", MANY, partial(graph, strategy="dgp")),
    "scores": Growth("all metrics of 80 classes", MANY, partial(metrics, bootstrap=0)),
    "intervals": Growth("the same with intervals (200 resamples)", MANY, partial(metrics, bootstrap=200)),
    "images": Growth("decoded-image cache, 64 x 64 pixels", (10**3, 10**4, 10**5), images),
    "runs": Growth("the command `mlkd runs`", (10**2, 10**3, 10**4), runs),
}


def peak() -> float:
    """The highest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def measure(name: str, n: int) -> None:
    """Prints both times, peak memory in MB and a note; called in a separate process."""
    memory_after_imports = peak()
    with tempfile.TemporaryDirectory() as folder:
        seconds, note = GROWTHS[name].measure(n, folder)
    print(*seconds, peak() - memory_after_imports, note, sep="\t")


def run() -> None:
    """Prints a table and saves it as a figure."""
    rows = []
    print(f"{platform.machine()}, {os.cpu_count()} cores; peak memory without imports\n")
    for name, growth in GROWTHS.items():
        for n in growth.sizes:
            command = [sys.executable, "-m", "benchmarks.scale", name, str(n)]
            printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            wall, cpu, megabytes, note = printed.strip().split("\t")
            rows.append((growth.title, n, float(cpu), float(megabytes)))
            print(
                f"{n:9,}  {float(wall):8.2f} s, CPU {float(cpu):8.2f} s  {float(megabytes):7.0f} MB  "
                f"{growth.title}: {note}",
                flush=True,
            )
    with atomic_write(FIGURE) as unfinished:
        plot(pd.DataFrame(rows, columns=["title", "N", "seconds", "MB"])).savefig(unfinished, format="png", dpi=120)
    print(f"\n{FIGURE}")


def plot(table: pd.DataFrame) -> plt.Figure:
    """CPU time and memory over N, one line per title."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for axis, column, label in zip(axes, ("seconds", "MB"), ("CPU time (s)", "peak memory (MB)"), strict=True):
        for title, group in table.groupby("title", sort=False):
            axis.loglog(group["N"], group[column].clip(lower=1e-3), "o-", label=title)
        axis.set(xlabel="N (images or runs)", ylabel=label)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(sys.argv[1], int(sys.argv[2]))
    else:
        run()
