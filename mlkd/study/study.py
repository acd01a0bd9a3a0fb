"""The object that describes what is trained: data, teacher, students, methods and seeds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field, Strict, field_validator, model_validator

from mlkd.data import MultiLabelData, load_data
from mlkd.data.splits import train_on_trainval
from mlkd.data.subset import first_images, frequent_labels
from mlkd.errors import check_choice
from mlkd.methods import ASLMethod, Method, create_method
from mlkd.metrics import METRICS, PROTOCOLS
from mlkd.registry import load_plugin
from mlkd.settings import Settings
from mlkd.study.read import check_sections, count_seeds, file_prefix, merge, nested, read_study
from mlkd.training.config import Config

if TYPE_CHECKING:
    from torch import nn

    from mlkd.training.runs import Run


class Reported(Settings):
    """What a paper's table reports for a recipe: all rows of its networks, in % on the test images; for information.

    Attributes:
        paper, table, dataset, networks: where the scores are from.
        options: those of the data address that give the paper's images, such as "labels=23".
        method: the method that the recipe is of.
        protocol: how the paper predicts the labels for its precision, recall and F1, as for `mlkd.evaluate`.
        scores: row -> metric of `mlkd.metrics.METRICS` -> score. The rows are "teacher", "vanilla" (the student without
            distillation), the other methods, and systems of other papers under their names.
    """

    title: ClassVar[str] = "reported"

    paper: str
    table: str
    dataset: Literal["coco", "voc", "nuswide", "mirflickr"]
    options: str
    networks: str
    method: str
    protocol: str
    scores: dict[str, dict[str, float]]

    @model_validator(mode="after")
    def _check_scores(self) -> Reported:
        check_choice("protocol", self.protocol, PROTOCOLS)
        check_scores("scores", self.scores)
        if self.method not in self.scores:
            raise ValueError(f"`scores` of {self.title} has no row {self.method!r}, the method of the recipe.")
        return self

    def data_address(self, path: str) -> str:
        """The data address of the paper's images in the folder `path`."""
        return f"{self.dataset}:{path}?{self.options}"

    def score(self, row: str, metric: str = "mAP") -> float | None:
        """A score of a row, or None if the table does not have it."""
        return self.scores.get(row, {}).get(metric)


def check_scores(name: str, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Raises ValueError if scores, row -> metric -> score in %, have an unknown metric or a score beyond 0 and 100."""
    for row, values in scores.items():
        for metric, score in values.items():
            check_choice(f"{name}.{row}", metric, METRICS)
            if not 0 <= score <= 100:
                raise ValueError(f"`{name}.{row}.{metric}` is {score}, expected a score in %, from 0 to 100.")


class Study(Settings):
    """A teacher, students, their methods and their data: everything that determines what is trained.

    `create_study` builds one from a preset, a recipe or a YAML file with these attributes as keys.

    Attributes:
        name: the preset, the recipe or the file it comes from.
        data: the data address, as for `mlkd.load_data`.
        teacher, student: how each is trained; the seed is set by each training.
        teacher_model: a model file that is used in place of training the teacher; "" for none.
        teacher_cache: a folder of cached teacher outputs, in place of the teacher; "" for none.
        label_subsets: settings of `student` that are different when a network of the student's architecture is trained
            on a label subset (CPSD), such as `{"epochs": 20}`.
        methods: method -> its settings.
        reduction: the reduction of the loss of every method, "sum" or "batchmean"; None for each method's default. The
            ratio of a method's terms does not depend on it.
        seeds: the seeds of the students; a number n stands for 0 to n - 1.
        train_split: the training images: "train", where `val` chooses the epoch, or "trainval" as in the papers, which
            has all training images and leaves no `val` (`mlkd.data.splits.train_on_trainval`). The latter requires
            `select="last"` of teacher and student.
        max_images: uses only that many images of each split, and at least one of every class; 0 for all.
        max_labels: uses only that many labels, the most frequent ones in training, on all images; 0 for all.
        plugins: Python files that register methods, data readers, heads or backbones.
        runs: the folder of all runs.
        reported, notes: of a recipe: what the paper reports, and what it leaves open.
    """

    title: ClassVar[str] = "the study"

    name: str = ""
    data: str = "scenes"
    teacher: Config = Config(role="teacher")
    student: Config = Config()
    teacher_model: str = ""
    teacher_cache: str = ""
    label_subsets: dict[str, Any] = Field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = Field(default_factory=dict)
    reduction: Literal["sum", "batchmean"] | None = None
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Strict(False), Field(min_length=1)] = (0,)
    train_split: Literal["train", "trainval"] = "train"
    max_images: Annotated[int, Field(ge=0)] = 0
    max_labels: Annotated[int, Field(ge=0)] = 0
    plugins: Annotated[tuple[str, ...], Strict(False)] = ()
    runs: Annotated[Path, Strict(False)] = Path("runs")
    reported: Reported | None = None
    notes: Annotated[tuple[str, ...], Strict(False)] = ()

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_seeds(cls, seeds: Any) -> Any:
        return count_seeds(seeds)

    @model_validator(mode="after")
    def _check_parts(self) -> Study:
        try:
            self._label_subset_config()
        except ValueError as error:
            raise ValueError(f"`label_subsets`: {error}") from None
        for name in self.methods:
            self.create_method(name)
        if self.train_split == "trainval":
            configs = (self.teacher_config(), self.student, self._label_subset_config())
            for section, config in zip(("teacher", "student", "label_subsets"), configs, strict=True):
                if config.select == "best" and config.epochs:
                    raise ValueError(
                        f"`train_split` is 'trainval', which leaves no validation images to choose the best epoch on; "
                        f"expected `{section}.select` to be 'last'."
                    )
        return self

    # What it consists of

    @cached_property
    def splits(self) -> Mapping[str, MultiLabelData]:
        """The data by split: "train", "val" (not with trainval), "test" and others; loaded on first use."""
        splits = load_data(self.data)
        if self.train_split == "trainval":
            splits = train_on_trainval(splits)
        if self.max_labels:
            splits = frequent_labels(splits, self.max_labels)
        if self.max_images:
            return {name: first_images(split, self.max_images) for name, split in splits.items()}
        return splits

    @property
    def classes(self) -> tuple[str, ...]:
        """The q class names."""
        return self.splits["train"].classes

    def to_yaml(self) -> str:
        """The study as a YAML file that `create_study` reads."""
        content = self.model_dump(mode="json", exclude={"runs"}, exclude_none=True)
        for section in ("teacher", "student"):
            del content[section]["seed"], content[section]["role"]
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)

    def create_method(self, name: str, **changes: Any) -> Method:
        """The method of that name with this study's settings, without the teachers it requires."""
        return create_method(name, **{**self._reduction(), **self.methods.get(name, {}), **changes})

    def build_method(self, name: str, **changes: Any) -> Method:
        """The method of that name with this study's settings and its teachers, which are trained first if necessary."""
        from mlkd.models import HEADS

        method = self.create_method(name, **changes)
        for role in ("student", *method.required_teachers):  # before a teacher is trained for nothing
            head = (self.teacher if role == "teacher" else self.student).head
            if role != "teacher" or not (self.teacher_model or self.teacher_cache):
                method.check_head(role, head, HEADS[head])
        return method.replace(**{role: self._teacher_for(method, role) for role in method.required_teachers})

    # What it trains. A finished run is returned, not trained again.

    def teacher_config(self) -> Config:
        """How the teacher's run is made: trained, or only evaluated if there is a `teacher_model`."""
        if not self.teacher_model:
            return self.teacher
        return self.teacher.replace(init_from=self.teacher_model, epochs=0, precision="float32")

    def train_teacher(self) -> Run:
        """The teacher's run."""
        return self.fit(self.create_method("vanilla"), self.teacher_config())

    def train_student(self, name: str, seed: int = 0, *, log_gradients_every: int = 0, **changes: Any) -> Run:
        """A student's run with the method of that name.

        `changes` are settings of the method (`lambda_cd=0.01`); `log_gradients_every` is that of `mlkd.fit`.
        """
        config = self.student.replace(seed=seed)
        return self.fit(self.build_method(name, **changes), config, log_gradients_every=log_gradients_every)

    def find_student(self, name: str, seed: int = 0) -> Run:
        """The run that `train_student` would return: complete, interrupted or new. Its teachers are trained."""
        from mlkd.training.identity import find_run

        return find_run(self.build_method(name), self.splits, self.student.replace(seed=seed), runs=self.runs)

    def train_students(self, name: str, **changes: Any) -> list[Run]:
        """One run per seed, all with the same teachers."""
        method = self.build_method(name, **changes)
        return [self.fit(method, self.student.replace(seed=seed)) for seed in self.seeds]

    def train_label_subset(self, name: str, strategy: str, number: int, **changes: Any) -> Run:
        """The run of one of the networks that a method's merged teacher consists of.

        Args:
            name, changes: the method, such as "cpsd", and settings of it, such as `k=5`.
            strategy: which of its teachers: "cgp", "dgp", "random" or "all_labels".
            number: which label subset, from 1 to k.

        Raises:
            ValueError: the method has no such teacher, or that teacher no such label subset.
        """
        from mlkd.study.label_subsets import label_subset_data
        from mlkd.training.loop import fit

        method = self.create_method(name, **changes)
        merged = [role for role in method.required_teachers if role != "teacher"]
        if strategy not in merged:
            expected = f"expected one of {', '.join(merged)}" if merged else "it has no merged teacher"
            raise ValueError(f"The method {name!r} has no label subsets {strategy!r}; {expected}.")
        partition = partition_settings(strategy, method)
        k = partition["k"]
        if not 1 <= number <= k:
            raise ValueError(f"The label subset is number {number}, expected 1 to {k}: the method {name!r} has k={k}.")
        splits = label_subset_data(self.splits, strategy, **partition)[number - 1]
        return fit(
            self._label_subset_method(), splits, self._label_subset_config(), runs=self.runs, study=self.to_yaml()
        )

    def fit(self, method: Method, config: Config, **options: Any) -> Run:
        """A run of this study on all its labels, by `mlkd.fit` with the same options."""
        from mlkd.training.loop import fit

        return fit(method, self.splits, config, runs=self.runs, study=self.to_yaml(), **options)

    def _teacher_for(self, method: Method, role: str) -> nn.Module:
        """The model that a method requires as `role`: the teacher, or networks of label subsets merged into one."""
        from mlkd.study.label_subsets import train_label_subsets
        from mlkd.training.teachers import CachedTeacher

        if role == "teacher":
            return CachedTeacher(self.teacher_cache) if self.teacher_cache else self.train_teacher().model()
        return train_label_subsets(
            self.splits,
            self._label_subset_config(),
            role,
            **partition_settings(role, method),
            method=self._label_subset_method(),
            runs=self.runs,
            study=self.to_yaml(),
        )

    def _reduction(self) -> dict[str, Any]:
        return {"reduction": self.reduction} if self.reduction else {}

    def _label_subset_config(self) -> Config:
        return self.student.replace(**{**self.label_subsets, "role": "label_subset"})

    def _label_subset_method(self) -> Method:
        """The asymmetric loss with the settings of `vanilla`, which trains all teachers."""
        settings = self.methods.get("vanilla", {})
        asl = {name: value for name, value in settings.items() if name in ASLMethod.model_fields}
        return create_method("vanilla", **{**self._reduction(), **asl, "loss": "asl"})


def create_study(
    study: str | Path | Mapping[str, Any] = "quick",
    data: str = "",
    seeds: int = 0,
    runs: str | Path = "",
    overrides: Mapping[str, Any] | None = None,
) -> Study:
    """A study: a preset, a recipe or a YAML file, on a data set, with some settings changed.

    Args:
        study: a preset ("smoke": does it run?, "quick": minutes on a CPU, "full"), a recipe of `mlkd recipes` such as
            "l2d-coco-r101-r34", the path of a YAML file, or a mapping with the same keys.
        data: as for `load_data`: "scenes", "voc:/path?year=2007", "coco:/path"; "" for the study's.
        seeds: how many students of each method; 0 for as many as the study has.
        runs: the folder of all runs; "" for the study's, which is "runs" if it has none.
        overrides: dotted key -> value: "student.epochs", "teacher.backbone", "l2d.lambda_cd", "reduction".

    Raises:
        ValueError: an unknown study or setting (the closest is given), or a value of the wrong kind.

    Example:
        >>> study = create_study("quick", overrides={"student.epochs": 20, "l2d.lambda_cd": 1.0})
        >>> study.student.epochs
        20
    """
    where = file_prefix(study)
    changes = {**(overrides or {}), **{key: value for key, value in (("data", data), ("seeds", seeds)) if value}}
    check_sections({key: value for key, value in changes.items() if key in Study.model_fields})
    content = read_study(study, changes.get("data", ""))
    for file in (*content.get("plugins", ()), *changes.get("plugins", ())):
        load_plugin(file)
    content = merge(content, nested(changes, Study.model_fields))
    if runs:
        content["runs"] = runs
    for section in ("teacher", "student"):
        for name in {"role", "seed"} & content[section].keys():
            raise ValueError(f"{where}`{section}`: `{name}` is determined by the study; use `seeds` for seeds.")
        try:
            content[section] = Config(**content[section], role=section)
        except ValueError as error:
            raise ValueError(f"{where}`{section}`: {error}") from None
    try:
        if content.get("reported"):
            content["reported"] = Reported(**content["reported"])
        return Study(**content)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None


def partition_settings(role: str, method: Method) -> dict[str, Any]:
    """The arguments of `label_subset_data` for a method's merged teacher of that role."""
    if role == "all_labels":
        return {"k": 1}
    settings = method.settings()
    names = {
        "k": "k",
        "tau": "tau",
        "seed": "partition_seed",
        "as_in_paper": "partition_as_in_paper",
        "subset_images": "subset_images",
    }
    return {argument: settings[name] for argument, name in names.items() if name in settings}
