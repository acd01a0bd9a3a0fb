"""The file of a sweep and the tasks it consists of."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlkd.study.sweep import Sweep, Task, expand_tasks, load_sweep

pytestmark = pytest.mark.usefixtures("own_cache")


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yml"
    path.write_text(text)
    return path


def option(task: Task, name: str) -> str:
    return task.arguments[task.arguments.index(name) + 1]


def overrides(task: Task) -> list[str]:
    return [value for name, value in zip(task.arguments, task.arguments[1:], strict=False) if name == "--set"]


def test_a_file_is_read(tmp_path: Path) -> None:
    text = """
        study: full
        data: [scenes, "voc:/x?year=2007"]
        methods: [vanilla, l2d]
        grid:
          l2d.lambda_cd: [0, 1e-2]
          l2d.reduction: sum
          student.augmentations: [[flip], [flip, cutout]]
        seeds: [3, 5]
        cpus: 4
        gpus: 0.5
    """
    sweep = load_sweep(write(tmp_path, text))
    assert sweep == Sweep(
        name="mine",
        study=("full",),
        data=("scenes", "voc:/x?year=2007"),
        methods=("vanilla", "l2d"),
        grid={
            "l2d.lambda_cd": (0, 0.01),
            "l2d.reduction": ("sum",),
            "student.augmentations": (["flip"], ["flip", "cutout"]),
        },
        seeds=(3, 5),
        cpus=4,
        gpus=0.5,
    )
    assert sweep.folder == Path("runs/sweeps/mine")
    short = load_sweep(write(tmp_path, "methods: [vanilla, mld]\nseeds: 3\nname: night\nruns: all"))
    assert short == Sweep(name="night", methods=("vanilla", "mld"), seeds=(0, 1, 2), runs="all")
    assert load_sweep(write(tmp_path, "methods: vanilla")).methods == ("vanilla",)


MISTAKES = {
    "methods: [vanilla]\ngird: {student.lr: 1}": "There is no setting 'gird' of the sweep. Did you mean 'grid'?",
    "data: scenes": "`methods` of the sweep is missing",
    "- methods": "expected a mapping of settings",
    "methods: [vanilla": "not valid YAML",
    "methods: !!python/object/apply:os.system [true]": "not valid YAML",
    "methods: []": "`methods` of the sweep is [], expected at least 1 entries",
    "methods: [vanilla]\ngrid: [1]": "`grid` of the sweep is [1], expected a mapping",
    "methods: [vanilla]\ngrid: {student.lr: []}": "`grid` has no value for 'student.lr'",
    "methods: [vanilla]\nseeds: 0": "`seeds` of the sweep is 0",
    "methods: [vanilla]\nseeds: [1, -1]": "`seeds` of the sweep",
    "methods: [vanilla]\nseeds: true": "`seeds` of the sweep is True",
    "methods: [vanilla]\ndata: [1]": "`data` of the sweep is 1, expected a text",
    "methods: [vanilla]\nstudy: 1": "`study` of the sweep is 1, expected a text",
    "methods: [vanilla]\ncpus: 0": "`cpus` of the sweep is 0, expected a number of at least 1",
    "methods: [vanilla]\ngpus: -1": "`gpus` of the sweep is -1",
    "methods: [vanilla]\nname: ../out": "`name` of the sweep is '../out'",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_invalid_file_gives_one_line_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mine\.yml: [^\n]*$") as caught:
        load_sweep(write(tmp_path, text))
    assert MISTAKES[text] in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none.yml: cannot be read \(No such file"):
        load_sweep(tmp_path / "none.yml")


def test_a_grid_is_every_combination() -> None:
    grid = {"student.lr": (0.001, 0.002), "l2d.lambda_mld": (1, 2), "l2d.lambda_cd": (0, 0.01), "mld.lambda_mld": (3,)}
    sweep = Sweep(name="g", study="smoke", methods=("vanilla", "l2d", "mld"), grid=grid, seeds=(0, 1), runs="here")
    tasks = expand_tasks(sweep)
    assert tasks[0].name == "teacher"  # what others depend on comes first
    assert tasks[0].arguments == ("--role", "teacher", "--study", "smoke", "--data", "scenes", "--runs", "here")
    students = [(option(task, "--method"), *overrides(task), option(task, "--seed")) for task in tasks[1:]]
    rates = [f"student.lr={lr}" for lr in (0.001, 0.002)]
    expected = [
        *(("vanilla", lr, s) for lr in rates for s in "01"),
        *(
            ("l2d", lr, f"l2d.lambda_mld={m}", f"l2d.lambda_cd={c}", s)
            for lr in rates
            for m in (1, 2)
            for c in (0, 0.01)
            for s in "01"
        ),
        *(("mld", lr, "mld.lambda_mld=3", s) for lr in rates for s in "01"),
    ]
    assert students == expected
    for task in tasks[1:]:
        assert task.depends_on == (() if task.name.startswith("vanilla") else ("teacher",))
    names = [task.name for task in tasks]
    assert len(set(names)) == len(names)
    assert "l2d-lr=0.002-lambda_mld=2-lambda_cd=0.01-seed=1" in names
    assert "mld-lr=0.001-seed=0" in names  # a key with one value is not in the name
    assert {task.group for task in tasks if "l2d-lr=0.001-lambda_mld=2-lambda_cd=0-" in task.name} == {
        "l2d lr=0.001 lambda_mld=2 lambda_cd=0"
    }


def test_each_teacher_of_the_grid_is_a_task() -> None:
    grid = {"teacher.epochs": (1, 2), "student.lr": (0.1, 0.2)}
    tasks = expand_tasks(Sweep(name="g", study="smoke", methods=("l2d",), grid=grid, seeds=(0,)))
    assert [task.name for task in tasks[:2]] == ["teacher-epochs=1", "teacher-epochs=2"]
    assert [overrides(task) for task in tasks[:2]] == [["teacher.epochs=1"], ["teacher.epochs=2"]]
    assert [task.depends_on for task in tasks[2:]] == [(tasks[0].name,)] * 2 + [(tasks[1].name,)] * 2


def test_networks_of_label_subsets_are_tasks() -> None:
    methods = ("cpsd", "cgpd", "sd", "vanilla")
    grid = {"cpsd.k": (2, 3), "cgpd.k": (2,)}
    tasks = {t.name: t for t in expand_tasks(Sweep(name="g", study="smoke", methods=methods, grid=grid, seeds=(0, 1)))}
    subsets = [name for name, task in tasks.items() if "--label-subset" in task.arguments]
    expected = [f"{s}-{i}-of-{k}-tau=3.0" for k in (2, 3) for s in ("cgp", "dgp") for i in range(1, k + 1)]
    assert subsets == [*expected, "all_labels-1-of-1"]
    assert tasks["cpsd-k=3-seed=1"].depends_on == tuple(expected[4:])
    assert tasks["cgpd-seed=0"].depends_on == ("cgp-1-of-2-tau=3.0", "cgp-2-of-2-tau=3.0")  # those of cpsd
    assert tasks["sd-seed=0"].depends_on == ("all_labels-1-of-1",)
    second = tasks["cgp-2-of-3-tau=3.0"]
    assert (option(second, "--method"), option(second, "--label-subset"), overrides(second)) == (
        "cpsd",
        "cgp:2",
        ["cpsd.k=3"],
    )
    assert not second.group


def test_partitions_of_a_grid_are_different_tasks() -> None:
    grid = {"random-psd.partition_seed": (0, 1), "random-psd.subset_images": ("containing", "all")}
    tasks = {
        t.name: t for t in expand_tasks(Sweep(name="g", study="smoke", methods=("random-psd",), grid=grid, seeds=(0,)))
    }
    subsets = [task for task in tasks.values() if "--label-subset" in task.arguments]
    others = ["", "-subset_images=all", "-seed=1", "-seed=1-subset_images=all"]
    assert [task.name for task in subsets] == [f"random-{i}-of-2-tau=3.0{text}" for text in others for i in (1, 2)]
    assert overrides(subsets[-1]) == ["random-psd.partition_seed=1", "random-psd.subset_images=all"]
    student = tasks["random-psd-partition_seed=1-subset_images=all-seed=0"]
    assert student.depends_on == tuple(task.name for task in subsets[-2:])


def test_label_subsets_follow_the_students_settings() -> None:
    grid = {"student.lr": (0.1, 0.2), "cgpd.lambda_kd": (1, 2)}
    tasks = expand_tasks(Sweep(name="g", study="smoke", methods=("cgpd",), grid=grid, seeds=(0,)))
    subsets = [task for task in tasks if "--label-subset" in task.arguments]
    assert [task.name for task in subsets] == [
        f"cgp-{i}-of-2-tau=3.0-student.lr={lr}" for lr in (0.1, 0.2) for i in (1, 2)
    ]


def test_every_data_set_has_its_own_tasks(voc_folder: Path) -> None:
    address = f"voc:{voc_folder}"
    tasks = expand_tasks(Sweep(name="g", study="smoke", methods=("l2d",), data=("scenes", address)))
    assert [task.data for task in tasks] == ["scenes", address, "scenes", address]
    assert len({task.name for task in tasks}) == 4
    assert not any("/" in task.name or ":" in task.name for task in tasks)
    for task in tasks:
        assert option(task, "--data") == task.data
        assert all(name in [other.name for other in tasks if other.data == task.data] for name in task.depends_on)


def test_wrong_settings_are_refused_before_anything_runs() -> None:
    def sweep(**values) -> Sweep:
        return Sweep(**{"name": "g", "methods": ("vanilla", "l2d"), "study": "smoke", **values})

    with pytest.raises(ValueError, match="Did you mean 'vanilla'"):
        expand_tasks(sweep(methods=("vanila",)))
    with pytest.raises(ValueError, match=r"no setting 'lambda_mdl' of the method 'l2d'\. Did you mean 'lambda_mld'"):
        expand_tasks(sweep(grid={"l2d.lambda_mdl": (1,)}))
    with pytest.raises(ValueError, match=r"There is no setting 'lr'. Did you mean 'student.lr'"):
        expand_tasks(sweep(grid={"lr": (1,)}))
    with pytest.raises(ValueError, match=r"`lr`.* is 'high'"):
        expand_tasks(sweep(grid={"student.lr": ("high",)}))
    with pytest.raises(ValueError, match="no study 'quik'"):
        expand_tasks(sweep(study="quik"))
    with pytest.raises(ValueError, match=r"The grid has 'mld\.lambda_mld', but 'mld' is not among its methods"):
        expand_tasks(sweep(grid={"mld.lambda_mld": (1,)}))


def test_the_data_of_the_study_is_the_default(voc_folder: Path, tmp_path: Path) -> None:
    study = write(tmp_path, f"{{base: smoke, data: 'voc:{voc_folder}'}}")
    (task,) = expand_tasks(Sweep(name="g", study=str(study), methods=("vanilla",)))
    assert task.data == option(task, "--data") == f"voc:{voc_folder}"


def test_missing_data_of_a_recipe() -> None:
    """The message has the address of the paper's images."""
    sweep = Sweep(name="table", study=("mskd-mirflickr-r34",), methods=("mskd",))
    with pytest.raises(ValueError, match=r"Pass `--data 'mirflickr:/path\?labels=23'`, or `--study smoke"):
        sweep.addresses("mskd-mirflickr-r34")


def test_several_studies_with_the_data_sets_that_they_name() -> None:
    studies = ("mskd-mirflickr-r34", "mskd-coco-r34")
    sweep = Sweep(name="g", study=studies, methods=("vanilla",), seeds=(0,), data=("coco:/x", "mirflickr:/y?labels=24"))
    tasks = expand_tasks(sweep)
    assert [(task.study, task.data) for task in tasks] == [
        ("mskd-mirflickr-r34", "mirflickr:/y?labels=24"),
        ("mskd-coco-r34", "coco:/x?year=2014&unlabeled=drop"),
    ]
    assert len({task.name for task in tasks}) == 2
    (coco,) = expand_tasks(sweep.replace(data="coco:/x"))
    assert coco.study == "mskd-coco-r34"
    others = expand_tasks(sweep.replace(data="voc:/z"))  # of no study: every study is trained on it
    assert [task.data for task in others] == ["voc:/z"] * 2


def test_a_list_of_grids_and_labels(tmp_path: Path) -> None:
    text = """
        study: smoke
        methods: [vanilla, l2d]
        grid:
        - {label: MLD, l2d.lambda_cd: 0, l2d.lambda_id: 0}
        - l2d.lambda_cd: [0.1, 1]
    """
    sweep = load_sweep(write(tmp_path, text))
    groups = {task.group: task for task in expand_tasks(sweep)}
    assert list(groups) == ["teacher", "vanilla", "MLD", "l2d lambda_cd=0.1", "l2d lambda_cd=1"]
    assert groups["MLD"].baseline == groups["l2d lambda_cd=1"].baseline == "vanilla"
    assert overrides(groups["MLD"]) == ["l2d.lambda_cd=0", "l2d.lambda_id=0"]
    assert load_sweep(write(tmp_path, sweep.to_yaml())) == sweep
    with pytest.raises(ValueError, match=r"a label, which names one row, but several values of 'l2d\.lambda_cd'"):
        load_sweep(write(tmp_path, text.replace("l2d.lambda_cd: 0,", "l2d.lambda_cd: [0, 1],")))


def test_options_replace_keys_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "{study: full, methods: [l2d], grid: {l2d.lambda_cd: [0, 1]}, data: 'voc:/x'}")
    sweep = load_sweep(path, study="smoke", data=["scenes"], seeds=2, runs="there", overrides={"l2d.lambda_cd": [5]})
    assert (sweep.name, sweep.study, sweep.data, sweep.seeds) == ("mine-smoke", ("smoke",), ("scenes",), (0, 1))
    assert (sweep.folder, sweep.grid) == (Path("there/sweeps/mine-smoke"), ({"l2d.lambda_cd": (5,)},))


def test_fixed_settings_reach_every_run() -> None:
    """Training on trainval requires the last epoch of teacher and student alike."""
    grid = {"train_split": ("trainval",), "teacher.select": ("last",), "student.select": ("last",)}
    methods = ("vanilla", "l2d", "sd")
    tasks = expand_tasks(Sweep(name="g", study="smoke", methods=methods, grid=grid, seeds=(0,)))
    assert len(tasks) == 5
    for task in tasks:
        assert sorted(overrides(task)) == ["student.select=last", "teacher.select=last", "train_split=trainval"]
