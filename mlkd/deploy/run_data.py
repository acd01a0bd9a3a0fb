"""The data that a run was trained on, compared with what the run states about it."""

from __future__ import annotations

from collections.abc import Mapping

from mlkd.data import MultiLabelData, load_data
from mlkd.errors import DataError
from mlkd.study import create_study
from mlkd.study.yaml_files import read_yaml
from mlkd.training.identity import hash_split
from mlkd.training.runs import Run


def load_run_data(run: Run, data: str = "") -> Mapping[str, MultiLabelData]:
    """The splits of a run, by its study. The plugins of the study are not loaded.

    Args:
        run: a run on all labels of its study.
        data: the data address, if it is not that of the run's study (the folder was moved).

    Raises:
        DataError: the labels or images are not those of the run (each split that differs is named), or the run has no
            study and `data` is "".
    """
    file = run.path / "study.yml"
    if not file.is_file() and not data:
        raise DataError(f"{run.path}: has no study.yml, so its data is unknown; give its address as `data`.")
    study = {**read_yaml(file), "plugins": ()} if file.is_file() else {}  # a run does not decide what is executed
    splits = create_study(study, data).splits if study else load_data(data)
    stored, hashes = run.config["data"]["splits"], {name: hash_split(split) for name, split in splits.items()}
    differences = [
        f"{name} is {hashes.get(name, 'absent')} here and {stored.get(name, 'absent')} in the run"
        for name in {**stored, **hashes}
        if hashes.get(name) != stored.get(name)
    ]
    if differences:
        raise DataError(
            f"{run.path}: the data is not that of the run; the hashes of class names, ids, labels and boxes differ: "
            f"{'; '.join(differences)}."
        )
    return splits
