"""Studies: presets, files, overrides, and what a study trains."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from toy import TOY_SPLITS

import mlkd
from mlkd.data import MultiLabelData
from mlkd.data.image_cache import decoded_images
from mlkd.graphs import cooccurrence, partition
from mlkd.methods import METHODS, create_method
from mlkd.models import create_model, fingerprint
from mlkd.study import Study, create_study, label_subsets
from mlkd.study.label_subsets import train_label_subsets
from mlkd.study.read import PRESETS, parse_override
from mlkd.training.config import Config
from mlkd.training.runs import Run, iter_runs

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def toy(toy_data: Mapping[str, MultiLabelData], toy_config: Config, tmp_path: Path) -> Study:
    TOY_SPLITS["plain"] = dict(toy_data)
    student = toy_config.replace(epochs=1)
    return Study(
        data="toy:plain",
        teacher=student.replace(role="teacher"),
        student=student,
        methods={"vanilla": {"reduction": "batchmean"}, "l2d": {"lambda_cd": 0.5, "lambda_id": 0.25}},
        seeds=2,
        runs=tmp_path / "runs",
    )


# Presets, files and overrides


@pytest.mark.parametrize(("preset", "count"), [("smoke", 1), ("quick", 2), ("full", 5)])
def test_presets_of_the_scenes(preset: str, count: int) -> None:
    study = create_study(preset)
    assert (study.data, study.name, study.runs) == ("scenes", preset, Path("runs"))
    assert study.seeds == tuple(range(count))
    assert (study.teacher.role, study.student.role) == ("teacher", "student")
    assert study.student.epochs > 0
    assert bool(study.teacher_model) == (preset == "quick")
    assert study.classes == study.splits["test"].classes
    assert all(study.create_method(name).settings()["reduction"] == "batchmean" for name in METHODS)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_of_photographs(preset: str, voc_folder: Path) -> None:
    study = create_study(preset, f"voc:{voc_folder}")
    assert (study.teacher.backbone, study.student.backbone) == ("resnet101", "resnet34")
    assert study.teacher.pretrained is True
    assert len(study.classes) == 20
    if preset == "full":  # the paper's settings: all defaults of `Config`
        assert study.student == Config()
        assert all(study.create_method(name) == create_method(name) for name in METHODS)
        assert study.label_subsets == {"epochs": 20}


@pytest.mark.parametrize(("name", "match"), [("qick", "quick"), ("Full", "full"), ("mskd-voc-r35", "mskd-voc-r34")])
def test_an_unknown_study_names_the_closest(name: str, match: str) -> None:
    with pytest.raises(ValueError, match=f"no study '{name}', expected smoke, quick, full.*Did you mean '{match}'"):
        create_study(name)


def test_seeds() -> None:
    assert create_study("quick", seeds=3).seeds == (0, 1, 2)
    assert create_study("quick", overrides={"seeds": [4, 7]}).seeds == (4, 7)
    for seeds in (0, -1, [], [-2], True, "three"):
        with pytest.raises(ValueError, match="`seeds`"):
            create_study("quick", overrides={"seeds": seeds})


def test_overrides_reach_every_part_of_a_study(tmp_path: Path) -> None:
    plain = create_study("full")
    overrides = {
        "teacher.backbone": "resnet56_cifar",
        "teacher.pretrained": "teacher.safetensors",
        "student.backbone_settings.stem_stride": 3,
        "student.image_size": 48,
        "label_subsets.epochs": 2,
        "l2d.lambda_cd": 0.75,
        "reduction": "sum",
        "vanilla.reduction": "batchmean",
    }
    study = create_study("full", runs=tmp_path, overrides=overrides)
    assert study.runs == tmp_path
    assert study.teacher == plain.teacher.replace(
        backbone="resnet56_cifar", backbone_settings={}, pretrained="teacher.safetensors"
    )
    assert study.student == plain.student.replace(backbone_settings={"stem_stride": 3}, image_size=48)
    assert study.label_subsets == {"epochs": 2}
    assert study.create_method("l2d").replace(lambda_cd=0.64) == plain.create_method("l2d").replace(reduction="sum")
    assert study.create_method("vanilla") == plain.create_method("vanilla")
    assert create_study("full", overrides={"student.lr": 1}).teacher == plain.teacher


@pytest.mark.parametrize("change", [{"teacher.backbone": "resnet20_cifar"}, {"teacher.epochs": 40}])
def test_a_changed_teacher_is_trained(change: dict) -> None:
    """Without a change, preset quick uses the teacher that ships with the package."""
    assert create_study("quick").teacher_config().epochs == 0
    study = create_study("quick", overrides=change)
    assert study.teacher_model == ""
    assert study.teacher_config() == study.teacher
    assert study.teacher_config().epochs > 0
    model = create_study("quick", overrides={**change, "teacher_model": "mine.safetensors"})
    assert model.teacher_config().init_from == "mine.safetensors"


def test_another_backbone_drops_the_settings_and_the_weights_of_the_first() -> None:
    first = {"student": {"backbone": "resnet18", "pretrained": "weights.safetensors", "backbone_settings": {"a": 1}}}
    study = create_study({"base": "full", **first}, overrides={"student.backbone": "resnet34"})
    assert (study.student.pretrained, study.student.backbone_settings) == (True, {})
    assert create_study({"base": "full", **first}).student.backbone_settings == {"a": 1}


def test_a_file_extends_its_base(tmp_path: Path) -> None:
    (tmp_path / "base.yml").write_text("{base: quick, student: {epochs: 9}, seeds: 4, methods: {l2d: {lambda_cd: 3}}}")
    path = tmp_path / "mine.yml"
    changes = "teacher: {epochs: 3}\nstudent: {lr: 0.5}\nmethods: {l2d: {lambda_id: 2}, mld: }"
    path.write_text(f"base: {tmp_path / 'base.yml'}\n{changes}")
    study, quick = create_study(path), create_study("quick")
    assert (study.name, study.seeds) == ("mine", (0, 1, 2, 3))
    assert study.student == quick.student.replace(epochs=9, lr=0.5)
    assert study.teacher == quick.teacher.replace(epochs=3)
    assert study.teacher_model == ""
    settings = study.create_method("l2d").settings()
    assert (settings["lambda_mld"], settings["lambda_cd"], settings["lambda_id"]) == (64.0, 3.0, 2.0)


@pytest.mark.parametrize("name", [*PRESETS, "cpsd-coco-r101-tf-576", "l2d-coco-r101-r34-official"])
def test_a_study_reads_back_from_its_yaml(name: str, tmp_path: Path) -> None:
    study = create_study(name)
    path = tmp_path / "resolved.yml"
    path.write_text(study.to_yaml())
    assert create_study(path) == study
    assert create_study(yaml.safe_load(study.to_yaml())) == study


MISTAKES = {
    "- a list": "expected a mapping of settings",
    "student: {epochs: 1": "not valid YAML",
    "student: !!python/object/apply:os.system [true]": "not valid YAML",
    "student: 5": "`student` is 5, expected a mapping",
    "sudent: {}": "There is no setting 'sudent' of the study. Did you mean 'student'?",
    "student: {epchs: 1}": "`student`: There is no setting 'epchs' of the training. Did you mean 'epochs'?",
    "student: {epochs: true}": "`student`: `epochs` of the training is True, expected a whole number.",
    "methods: {l2f: {}}": "`method` is 'l2f', expected one of",
    "methods: {l2d: {lambda_x: 1}}": "no setting 'lambda_x' of the method 'l2d'. Did you mean 'lambda_id'?",
    "label_subsets: {epochs: x}": "`label_subsets`: `epochs` of the training is 'x'",
    "reduction: mean": "`reduction` of the study is 'mean', expected sum or batchmean.",
    "max_images: -1": "`max_images` of the study is -1",
    "base: quik": "There is no study 'quik'",
    "base: 5": "`base` is 5, expected a text.",
    "data: 5": "`data` is 5, expected a text.",
    "plugins: mine.py": "`plugins` is 'mine.py', expected a list of texts.",
    "notes: 5": "`notes` is 5, expected a list of texts.",
    "reported: 5": "`reported` is 5, expected a mapping.",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_invalid_file_gives_one_line_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        create_study(path)
    assert MISTAKES[text] in str(caught.value)
    if "quik" not in text:
        assert str(caught.value).startswith(str(path))


def test_a_study_cannot_be_based_on_itself(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yml", tmp_path / "second.yml"
    first.write_text(f"base: {second}")
    second.write_text(f"base: {first}")
    with pytest.raises(ValueError, match=r"second\.yml: `base` is '.*first\.yml', which is based on this study itself"):
        create_study(first)


def test_a_section_and_a_key_in_it_cannot_both_be_set() -> None:
    with pytest.raises(ValueError, match=r"'student.lr.x' cannot be set, because `lr` is set to 1"):
        create_study("quick", overrides={"student.lr": 1, "student.lr.x": 2})


@pytest.mark.parametrize(
    ("key", "match"),
    [("lambda_cd", "l2d.lambda_cd"), ("sedes", "seeds"), ("l2f.lambda_cd", "l2d.lambda_cd")],
)
def test_an_unknown_override_names_the_closest(key: str, match: str) -> None:
    with pytest.raises(ValueError, match=f"There is no setting '{key}'. Did you mean '{match}'"):
        create_study("quick", overrides={key: 1})


@pytest.mark.parametrize(
    ("text", "override"),
    [
        ("student.epochs=5", ("student.epochs", 5)),
        ("student.lr=1e-3", ("student.lr", 0.001)),
        ("student.pretrained=false", ("student.pretrained", False)),
        ('student.augmentations=["flip"]', ("student.augmentations", ["flip"])),
        ("data=voc:/x?year=2007", ("data", "voc:/x?year=2007")),
    ],
)
def test_overrides_of_the_command_line(text: str, override: tuple) -> None:
    assert parse_override(text) == override


@pytest.mark.parametrize("text", ["student.epochs", "=3", ""])
def test_an_override_needs_a_key_and_a_value(text: str) -> None:
    with pytest.raises(ValueError, match=f"`--set` is '{text}', expected a key and a value"):
        parse_override(text)


# Few images


def test_max_images_keeps_the_first_images_and_every_class() -> None:
    splits, few = mlkd.load_data("scenes"), create_study("smoke").splits
    assert few.keys() == splits.keys()
    for name, split in few.items():
        assert len(split) <= min(96, len(splits[name])) + len(split.classes)
        assert np.array_equal(split.targets.any(axis=0), splits[name].targets.any(axis=0))
        assert set(split.ids) <= set(splits[name].ids)
        assert split.ids[: min(96, len(split))] == splits[name].ids[: min(96, len(split))]
    assert len(few["train"]) < len(splits["train"])
    assert {name: len(split) for name, split in create_study("quick").splits.items()} == {
        name: len(split) for name, split in splits.items()
    }


def test_max_images_decodes_no_other_images() -> None:
    """The decoded images of a subset are rows of the whole split's; smoke must not decode all of a large data set."""
    for split in create_study("smoke").splits.values():
        assert len(decoded_images(split, 32).table) == len(split)


# What a study trains


def test_a_teacher_is_trained_once_and_a_student_for_each_seed(toy: Study, capsys: pytest.CaptureFixture) -> None:
    teacher = toy.train_teacher()
    assert teacher.config["training"]["role"] == "teacher"
    assert teacher.config["settings"]["reduction"] == "batchmean"
    students = toy.train_students("l2d", lambda_cd=0.75)
    assert [run.config["training"]["seed"] for run in students] == [0, 1]
    for run in students:
        settings = run.config["settings"]
        assert (settings["lambda_cd"], settings["lambda_id"], settings["lambda_mld"]) == (0.75, 0.25, 10.0)
        assert settings["teacher"]
        assert list(run.history.columns)[2:6] == ["bce", "mld", "cd", "id"]
    assert capsys.readouterr().out.count("vanilla teacher, seed 0: epoch 1/1") == 1
    assert toy.train_student("l2d", 1, lambda_cd=0.75).path == students[1].path
    for run in (teacher, *students):
        assert create_study(run.path / "study.yml", runs=toy.runs) == toy
    assert "teacher" not in toy.train_student("vanilla").config["settings"]


def label_subset_runs(study: Study) -> list[Run]:
    return [run for run in iter_runs(study.runs) if run.config["training"]["role"] == "label_subset"]


def test_networks_of_label_subsets_are_trained_once(toy: Study, capsys: pytest.CaptureFixture) -> None:
    students = toy.train_students("cpsd", k=2, tau=2.0)
    assert [run.config["training"]["seed"] for run in students] == [0, 1]
    counts = cooccurrence(toy.splits["train"].targets)
    method = create_method("vanilla", loss="asl", reduction="batchmean")
    for role in ("cgp", "dgp"):
        assert len({run.config["settings"][role] for run in students}) == 1
        merged = train_label_subsets(toy.splits, toy.student, role, 2, tau=2.0, method=method, runs=toy.runs)
        assert students[0].config["settings"][role] == fingerprint(merged)
    expected = [partition(counts, 2, role, 2.0) for role in ("cgp", "dgp")]
    names = {tuple(np.array(toy.classes)[subsets == number]) for subsets in expected for number in (0, 1)}
    runs = label_subset_runs(toy)
    assert {run.predictions().classes for run in runs} == names
    for run in runs:
        assert run.config["training"] == toy.student.replace(role="label_subset").as_dict()
        assert run.config["settings"] == method.settings()
    out = capsys.readouterr().out
    assert out.count("vanilla label subset (") == len(runs)
    assert "teacher" not in out


def test_partitions_follow_the_method(toy: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def record(data, config, strategy, *, method, runs, study, **partition):
        calls.append((strategy, partition))
        return create_model("resnet8_cifar", toy.classes, image_size=32)

    monkeypatch.setattr(label_subsets, "train_label_subsets", record)
    settings = {"partition_seed": 3, "partition_as_in_paper": True, "subset_images": "all"}
    toy.build_method("cpsd", k=4, tau=2.5, **settings)
    toy.build_method("random-psd")
    toy.build_method("sd")
    changed = {"k": 4, "tau": 2.5, "seed": 3, "as_in_paper": True, "subset_images": "all"}
    default = {"k": 5, "tau": 3.0, "seed": 0, "as_in_paper": False, "subset_images": "containing"}
    assert calls == [("cgp", changed), ("dgp", changed), ("random", default), ("all_labels", {"k": 1})]


@pytest.mark.parametrize(
    ("name", "count"), [("sd", 1), ("cgpd", 2), ("dgpd", 2), ("random-psd", 2), ("vanilla", 0), ("l2d", 0)]
)
def test_each_method_gets_its_teachers(name: str, count: int, toy: Study) -> None:
    method = toy.build_method(name, **({"k": 2} if count == 2 else {}))
    assert all(model.classes == toy.classes for model in method.teachers.values())
    assert len(label_subset_runs(toy)) == count


@pytest.mark.parametrize(
    ("name", "role", "head", "missing"),
    [
        ("l2d", "student", "gap", "distills label-wise embeddings"),
        ("l2d", "teacher", "gap", "distills label-wise embeddings"),
        ("cam-kd", "student", "transformer", "distills class activation maps"),
        ("cam-kd", "teacher", "query2label", "distills class activation maps"),
    ],
)
def test_head_is_refused_before_a_teacher_is_trained(
    name: str, role: str, head: str, missing: str, toy: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Study, "train_teacher", lambda self: pytest.fail("a teacher was trained"))
    study = toy.replace(**{role: getattr(toy, role).replace(head=head)})
    with pytest.raises(ValueError, match=f"{missing}, which the {role}'s head '{head}' does not have"):
        study.build_method(name)


def test_label_subsets_may_have_another_schedule_and_the_students_architecture(toy: Study) -> None:
    study = toy.replace(label_subsets={"epochs": 2, "lr": 1e-3})
    study.build_method("sd")
    (run,) = label_subset_runs(study)
    expected = study.student.replace(role="label_subset", epochs=2, lr=1e-3)
    assert run.config["training"] == expected.as_dict()


def test_networks_of_label_subsets_have_the_asl_settings_of_vanilla(toy: Study) -> None:
    methods = {"vanilla": {"pos_weight": 2.0, "gamma_neg": 4.0}, "sd": {"gamma_neg": 1.0, "clip": 0.0}}
    study = toy.replace(methods=methods)
    run = study.train_student("sd")
    assert (run.config["settings"]["gamma_neg"], run.config["settings"]["clip"]) == (1.0, 0.0)
    (teacher,) = label_subset_runs(study)
    assert teacher.config["settings"] == create_method("vanilla", loss="asl").settings()
    study = toy.replace(methods={"vanilla": {"loss": "asl", "gamma_neg": 2.0, "gamma_pos": 1.0}})
    settings = study.train_label_subset("sd", "all_labels", 1).config["settings"]
    assert (settings["gamma_neg"], settings["gamma_pos"], settings["clip"]) == (2.0, 1.0, 0.05)


def test_label_subset_runs_are_those_of_the_student(toy: Study) -> None:
    """Whether they are trained one by one, as in a sweep, or with the student."""
    settings = {"k": 2, "partition_seed": 4, "partition_as_in_paper": True, "subset_images": "all"}
    paths = {toy.train_label_subset("random-psd", "random", number, **settings).path for number in (1, 2)}
    toy.build_method("random-psd", **settings)
    assert {run.path for run in label_subset_runs(toy)} == paths
    expected = partition(cooccurrence(toy.splits["train"].targets), 2, "random", seed=4)
    for run in label_subset_runs(toy):
        (number,) = {int(expected[toy.classes.index(name)]) for name in run.predictions().classes}
        assert len(run.predictions().classes) == (expected == number).sum()


# Training on all training images


def test_trainval_is_trained_on_by_all(toy: Study) -> None:
    select = {"select": "last"}
    study = toy.replace(
        train_split="trainval", teacher=toy.teacher.replace(**select), student=toy.student.replace(**select)
    )
    assert {name: len(split) for name, split in study.splits.items()} == {"train": 104, "test": 40}
    runs = [study.train_student("l2d"), study.train_teacher(), study.train_label_subset("cpsd", "cgp", 1, k=2)]
    for run in runs:
        assert list(run.config["data"]["splits"]) == ["train", "test"]
        assert list(run.mean_ap) == ["test"]
        assert run.config["training"]["select"] == "last"
    assert create_study(runs[0].path / "study.yml", runs=study.runs) == study
    assert toy.train_teacher().path != runs[1].path


@pytest.mark.parametrize(
    ("last", "section"), [((), "teacher"), (("teacher",), "student"), (("teacher", "student"), "label_subsets")]
)
def test_trainval_requires_the_last_epoch(last: tuple[str, ...], section: str) -> None:
    overrides = {
        "train_split": "trainval",
        "label_subsets.select": "best",
        **{f"{name}.select": "last" for name in last},
    }
    with pytest.raises(ValueError, match=f"leaves no validation images .*; expected `{section}.select` to be 'last'"):
        create_study("full", overrides=overrides)


def test_trainval_with_a_teacher_that_is_not_trained() -> None:
    study = create_study("quick", overrides={"train_split": "trainval", "student.select": "last"})
    assert "val" not in study.splits
    assert len(study.splits["train"]) == 140
    with pytest.raises(ValueError, match="`train_split` of the study is 'all', expected train or trainval"):
        create_study("quick", overrides={"train_split": "all"})


def test_one_label_subset(toy: Study) -> None:
    run = toy.train_label_subset("cpsd", "dgp", 2, k=2)
    assert run.path in [other.path for other in label_subset_runs(toy)]
    with pytest.raises(ValueError, match="The label subset is number 3, expected 1 to 2: the method 'cpsd' has k=2"):
        toy.train_label_subset("cpsd", "cgp", 3, k=2)
    with pytest.raises(ValueError, match="'cpsd' has no label subsets 'random'; expected one of cgp, dgp"):
        toy.train_label_subset("cpsd", "random", 1)
    with pytest.raises(ValueError, match="it has no merged teacher"):
        toy.train_label_subset("l2d", "cgp", 1)


def test_wrong_methods_and_settings_are_refused_before_the_teacher_is_trained(toy: Study) -> None:
    with pytest.raises(ValueError, match="Did you mean 'vanilla'"):
        toy.train_student("vanila")
    with pytest.raises(ValueError, match=r"no setting 'lambda_cdd' of the method 'l2d'. Did you mean 'lambda_cd'"):
        toy.train_student("l2d", lambda_cdd=1.0)
    assert not toy.runs.exists()


ALIASES = "a: &a [1, 1]\n" + "\n".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in pairwise("abcdefg"))
"""A short file of a million values."""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: 1\nseeds: 2", "not valid YAML: the key 'seeds' occurs twice"),
        ("student: {lr: .nan}", "has the value nan, expected finite numbers"),
        ("name: 2026-11-24", "has the date datetime.date(2026, 11, 24), expected texts, numbers"),
        ("name: !!set {a}", "has the set {'a'}, expected texts, numbers"),
        ("name: !!python/object/apply:os.getcwd []", "not valid YAML: could not determine a constructor"),
        ("name: 2026-99-99", "not valid YAML: month must be in 1..12"),
        ("name: " + "[" * 5000 + "]" * 5000, "nested"),
        (
            "a: &a [1, 1]\n" + "\n".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in pairwise("abcdefg")),
            "100000",
        ),
        ("seeds: 1000000000", "`seeds` is 1000000000, expected at most 10000 seeds"),
        ("student: {1: 2}", "`student` is {1: 2}, expected texts as keys"),
        ("base: nope", "There is no study 'nope'"),
    ],
)
def test_a_file_with_other_values_is_refused_and_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "study.yml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"study\.yml: ") as caught:
        create_study(path)
    assert message in str(caught.value)


def test_a_number_is_replaced_by_a_mapping() -> None:
    with pytest.raises(ValueError, match=r"`lr` of the training is \{'a': 1\}, expected a number"):
        create_study("smoke", overrides={"student.lr.a": 1})
