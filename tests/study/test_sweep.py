"""The file of a sweep and the runs it stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

import mlkd
from mlkd.study.sweep import Sweep, Task, read, tasks

pytestmark = pytest.mark.usefixtures("own_cache")


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yml"
    path.write_text(text)
    return path


def option(task: Task, name: str) -> str:
    return task.arguments[task.arguments.index(name) + 1]


def set_by(task: Task) -> list[str]:
    return [value for name, value in zip(task.arguments, task.arguments[1:], strict=False) if name == "--set"]


def test_a_file_is_read(tmp_path: Path) -> None:
    found = read(
        written(
            tmp_path,
            """
            data: [scenes, "voc:/x?year=2007"]
            preset: full
            methods:
              vanilla:
              l2d: {lambda_cd: [0, 1e-2], reduction: sum}
            settings: {lr: 1e-3, augment: [[flip], [flip, cutout]]}
            seeds: [3, 5]
            cpus: 4
            gpus: 0.5
            """,
        )
    )
    assert found == Sweep(
        name="mine",
        methods={"vanilla": {}, "l2d": {"lambda_cd": (0, 0.01), "reduction": ("sum",)}},
        settings={"lr": (0.001,), "augmentations": (["flip"], ["flip", "cutout"])},
        data=("scenes", "voc:/x?year=2007"),
        seeds=(3, 5),
        preset="full",
        cpus=4,
        gpus=0.5,
    )
    assert found.folder == Path("runs/sweeps/mine")
    short = read(written(tmp_path, "methods: [vanilla, mld]\nseeds: 3\nname: night\nruns: all"))
    assert short == Sweep("night", {"vanilla": {}, "mld": {}}, seeds=(0, 1, 2), runs="all")
    assert read(written(tmp_path, "methods: vanilla")).methods == {"vanilla": {}}


MISTAKES = {
    "methods: [vanilla]\nsetings: {lr: 1}": "there is no key 'setings'. Did you mean 'settings'?",
    "data: scenes": "expected a mapping with at least `methods`",
    "- methods": "expected a mapping with at least `methods`",
    "methods: [vanilla": "not valid YAML",
    "methods: !!python/object/apply:os.system [true]": "not valid YAML",
    "methods: []": "`methods` is [], expected a list of methods",
    "methods: {l2d: [0, 1]}": "`methods: l2d` is [0, 1], expected a mapping",
    "methods: {l2d: {lambda_cd: []}}": "`methods: l2d` has no value for 'lambda_cd'",
    "methods: [vanilla]\nseeds: 0": "`seeds` is 0, expected how many",
    "methods: [vanilla]\nseeds: [1, -1]": "`seeds` is [1, -1]",
    "methods: [vanilla]\nseeds: true": "`seeds` is True",
    "methods: [vanilla]\ndata: [1]": "`data` is [1], expected a text",
    "methods: [vanilla]\npreset: 1": "`preset` is 1, expected a text",
    "methods: [vanilla]\nimage_size: big": "`image_size` is 'big'",
    "methods: [vanilla]\ncpus: 0": "`cpus` is 0, expected a whole number of at least 1",
    "methods: [vanilla]\ngpus: -1": "`gpus` is -1",
    "methods: [vanilla]\nname: ../out": "`name` is '../out'",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_the_file_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mine\.yml: ") as caught:
        read(written(tmp_path, text))
    assert MISTAKES[text] in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none.yml: no such sweep file"):
        read(tmp_path / "none.yml")


def test_a_grid_is_every_combination() -> None:
    methods = {"vanilla": {}, "l2d": {"lambda_cd": (0, 0.01), "lr": (0.1,)}, "mld": {}}
    grid = Sweep("g", methods, {"lr": (0.001, 0.002), "lambda_mld": (1, 2)}, seeds=(0, 1), preset="smoke", runs="here")
    found = tasks(grid)
    assert found[0].name == "teacher"  # what others need goes first
    assert found[0].arguments == ("--role", "teacher", "--data", "scenes", "--preset", "smoke", "--runs", "here")
    students = [(option(task, "--method"), *set_by(task), option(task, "--seed")) for task in found[1:]]
    expected = [
        *(("vanilla", f"lr={lr}", s) for lr in (0.001, 0.002) for s in "01"),
        # its own grid goes before the common one, and has no second lr
        *(("l2d", "lr=0.1", f"lambda_mld={m}", f"lambda_cd={c}", s) for m in (1, 2) for c in (0, 0.01) for s in "01"),
        *(("mld", f"lr={lr}", f"lambda_mld={m}", s) for lr in (0.001, 0.002) for m in (1, 2) for s in "01"),
    ]
    assert students == expected
    for task in found[1:]:
        assert task.needs == (() if task.name.startswith("vanilla") else ("teacher",))
    names = [task.name for task in found]
    assert len(set(names)) == len(names)
    assert "l2d-lambda_mld=2-lambda_cd=0.01-seed=1" in names  # what has one value is not in the name
    assert {task.group for task in found if "l2d-lambda_mld=2-lambda_cd=0-" in task.name} == {
        "l2d lambda_mld=2 lambda_cd=0"
    }


def test_models_of_parts_are_tasks_of_their_own() -> None:
    methods = {"cpsd": {"k": (2, 3)}, "cgpd": {"k": (2,)}, "sd": {}, "vanilla": {}}
    found = {task.name: task for task in tasks(Sweep("g", methods, preset="smoke", seeds=(0, 1)))}
    parts = [name for name in found if option(found[name], "--seed" if "seed" in name else "--role") == "part"]
    expected = [f"{s}-part={i}of{k}-tau=3.0" for k in (2, 3) for s in ("cgp", "dgp") for i in range(1, k + 1)]
    assert parts == [*expected, "whole-part=1of1"]
    assert found["cpsd-k=3-seed=1"].needs == tuple(expected[4:])
    assert found["cgpd-seed=0"].needs == ("cgp-part=1of2-tau=3.0", "cgp-part=2of2-tau=3.0")  # cpsd's, not trained twice
    assert found["sd-seed=0"].needs == ("whole-part=1of1",)
    second = found["cgp-part=2of3-tau=3.0"]
    assert (option(second, "--method"), option(second, "--part"), set_by(second)) == (
        "cpsd",
        "cgp:2",
        ["k=3", "tau=3.0"],
    )
    assert not second.group


def test_every_data_set_has_its_own_tasks(voc_folder: Path) -> None:
    spec = f"voc:{voc_folder}"
    found = tasks(Sweep("g", {"l2d": {}}, data=("scenes", spec), preset="smoke"))
    assert [task.data for task in found] == ["scenes", spec, "scenes", spec]
    assert len({task.name for task in found}) == 4
    assert not any("/" in task.name or ":" in task.name for task in found)
    for task in found:
        assert option(task, "--data") == task.data
        assert all(name in [other.name for other in found if other.data == task.data] for name in task.needs)


def test_options_of_train_are_handed_on() -> None:
    grid = Sweep(
        "g", {"vanilla": {}}, recipe="l2d-voc-r50-r18", preset="smoke", image_size=48, student_backbone="resnet34"
    )
    (task,) = tasks(grid)
    for name, value in {"--recipe": "l2d-voc-r50-r18", "--image-size": "48", "--student-backbone": "resnet34"}.items():
        assert option(task, name) == value
    assert "--teacher-backbone" not in task.arguments


def test_wrong_settings_are_told_before_anything_runs() -> None:
    def of(**values) -> Sweep:
        return Sweep(**{"name": "g", "methods": {"vanilla": {}, "l2d": {}}, "preset": "smoke", **values})

    with pytest.raises(ValueError, match="Did you mean 'vanilla'"):
        tasks(of(methods={"vanila": {}}))
    with pytest.raises(
        ValueError, match=r"`settings` has 'lambda_mdl', which is no setting.*Did you mean 'lambda_mld'"
    ):
        tasks(of(settings={"lambda_mdl": (1,)}))
    with pytest.raises(ValueError, match="`methods: vanilla` has 'lambda_mld', which is no setting"):
        tasks(of(methods={"vanilla": {"lambda_mld": (1,)}, "l2d": {}}))
    with pytest.raises(ValueError, match="`settings` has 'seed'"):
        tasks(of(settings={"seed": (1,)}))
    with pytest.raises(ValueError, match="`lr` is 'high'"):
        tasks(of(settings={"lr": ("high",)}))
    with pytest.raises(ValueError, match="`preset` is 'quik'"):
        tasks(of(preset="quik"))
    with pytest.raises(mlkd.DataError, match="absent"):
        tasks(of(data=("voc:absent",)))
