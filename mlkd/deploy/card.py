"""The model card beside an exported model: Markdown with the front matter of Hugging Face."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mlkd.files import atomic_write
from mlkd.metrics import Scores, evaluate
from mlkd.models import MultiLabelModel
from mlkd.training.runs import Run

METRICS = ("mAP", "CF1", "OF1")

LIBRARIES = {".safetensors": "mlkd", ".onnx": "onnx", ".pt2": "pytorch"}

LICENSE = """\
No license is stated here. Which one is possible depends on the licenses of the training images, of the pretrained
weights that the training started from, and of the teacher. Check them before you publish the model, then replace
`license: other` at the top of this file.
"""


def write_card(run: Run, model: MultiLabelModel, file: str | Path, int8: Mapping[str, Any] | None = None) -> Path:
    """Writes `FILE.md` beside an exported model file.

    The card states data with hashes, protocols and scores with 95 % bootstrap intervals, settings, seed and versions.

    Args:
        run: the finished run that the model is of.
        model: the model, with its thresholds.
        file: the exported file.
        int8: the fields of an `Int8Result`, for a file in int8.

    Returns:
        The path of the card.
    """
    file = Path(file)
    path = file.with_name(f"{file.name}.md")
    with atomic_write(path) as unfinished:
        unfinished.write_text(_card(run, model, file, int8))
    return path


def _card(run: Run, model: MultiLabelModel, file: Path, int8: Mapping[str, Any] | None) -> str:
    config, metrics = run.config, run.metrics
    training, scores = config["training"], _scores(run)
    backbone, role = training["backbone"], training["role"].replace("_", " ")
    teachers = [name for name in config["settings"] if name in ("teacher", "cgp", "dgp", "random", "all_labels")]
    sections = [
        f"# {_escape(file.stem)}",
        f"An image classifier with {len(model.classes)} labels: the backbone {_escape(backbone)} with the head "
        f"{_escape(training['head'])}, {metrics['parameters'] / 1e6:.2f} million parameters. It is a {role} trained on "
        f"{_escape(config['data']['name'])} by the method `{config['method']}` of mlkd"
        + (f", distilled from {', '.join(teachers)}." if teachers else "."),
        "## Use",
        _use(file),
        "## Labels",
        _labels(model),
        "## Preprocessing",
        _table(("", ""), [(name, _escape(value)) for name, value in model.metadata.preprocessing.items()]),
        "## Scores",
        "In %, with 95 % bootstrap intervals over the images; they do not contain the variation between seeds. `val` "
        "was used to choose the epoch or the thresholds, so its scores are higher than on new images.",
        _table(
            ("split", "images", "protocol", *METRICS),
            [(name, s["n"], s["protocol"], *(_interval(s, metric) for metric in METRICS)) for name, s in scores],
        ),
        *_int8_section(int8),
        "## Data",
        _table(("split", "hash of labels and ids"), list(config["data"]["splits"].items())),
        "## Training",
        f"Seed {training['seed']}; the kept epoch is {metrics['selected_epoch']} (`select: {metrics['select']}`).",
        _yaml({"method": {config["method"]: config["settings"]}, "training": training}),
        "## Versions",
        _table(("", ""), [(name, _escape(value)) for name, value in _environment(run).items()]),
        "## License",
        LICENSE.strip(),
    ]
    return f"---\n{_front_matter(run, file, scores)}---\n\n" + "\n\n".join(sections) + "\n"


def _front_matter(run: Run, file: Path, scores: Sequence[tuple[str, Scores]]) -> str:
    config = run.config
    results = [
        {
            "task": {"type": "image-classification", "name": "Multi-label image classification"},
            "dataset": {"name": config["data"]["name"], "type": config["data"]["name"], "split": name},
            "metrics": [{"type": metric, "value": round(100 * s[metric], 2)} for metric in METRICS],
        }
        for name, s in scores
        if s["protocol"] == "threshold(0.5)"
    ]
    content = {
        "license": "other",
        "library_name": LIBRARIES[file.suffix],
        "pipeline_tag": "image-classification",
        "tags": ["multi-label-classification", "knowledge-distillation", "mlkd", config["method"]],
        "model-index": [{"name": file.stem, "results": results}],
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _scores(run: Run) -> list[tuple[str, Scores]]:
    """The scores of each split at a probability of 0.5 and, except on `val`, at the thresholds tuned on `val`."""
    rows = []
    val = run.predictions("val") if "val" in run.mean_ap else None
    for name in run.mean_ap:
        split = run.predictions(name)
        for protocol in ("threshold(0.5)", "tuned"):
            if protocol == "tuned" and (val is None or name == "val"):
                continue
            if not split.targets.any():
                continue
            validation = (val.targets, val.logits, val.ignore_mask) if val and protocol == "tuned" else None
            rows.append(
                (
                    name,
                    evaluate(
                        split.targets,
                        split.logits,
                        protocol,
                        classes=split.classes,
                        ignore_mask=split.ignore_mask,
                        validation=validation,
                    ),
                )
            )
    return rows


def _interval(scores: Scores, metric: str) -> str:
    low, high = scores["interval"][metric]
    return f"{100 * scores[metric]:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def _use(file: Path) -> str:
    if file.suffix == ".pt2":
        return (
            f'```py\nimport torch\n\nmodule = torch.export.load("{file.name}").module()  # images to probabilities\n```'
        )
    return f"```sh\nmlkd predict {file.name} IMAGES...\n```"


def _labels(model: MultiLabelModel) -> str:
    values = np.full(len(model.classes), 0.5) if model.thresholds is None else model.thresholds
    source = "0.5, since the run has no split `val`" if model.thresholds is None else "tuned on `val` for the best F1"
    rows = [(_escape(name), f"{value:.4f}") for name, value in zip(model.classes, values.tolist(), strict=True)]
    return f"A label is predicted from this probability on ({source}):\n\n" + _table(("label", "threshold"), rows)


def _int8_section(int8: Mapping[str, Any] | None) -> list[str]:
    if int8 is None:
        return []
    return [
        "## Quantization",
        f"The file is in int8, calibrated on {int8['calibration_images']} training images. The mAP on {int8['split']} "
        f"is {100 * int8['int8']:.2f} %, and {100 * int8['float32']:.2f} % in float32. The scores above are those of "
        f"the model in float32.",
    ]


def _environment(run: Run) -> dict[str, str]:
    path = run.path / "environment.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _yaml(content: Mapping[str, Any]) -> str:
    return f"```yaml\n{yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)}```"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _escape(value: object) -> str:
    """A text on one line, without a meaning in Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>&#|~])", r"\\\1", " ".join(str(value).split()))
