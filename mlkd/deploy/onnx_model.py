"""A model in ONNX format, evaluated by ONNX Runtime. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlkd.errors import WeightsError
from mlkd.models.image_predictor import ImagePredictor
from mlkd.models.metadata import ModelMetadata


class OnnxModel(ImagePredictor):
    """An ONNX file that `mlkd export` wrote, on the CPU.

    Attributes:
        classes, image_size, thresholds: as in `ImagePredictor`.
        metadata: the class names, preprocessing and thresholds.
        texts: everything that the file states about the model, by name: also "config", "metrics", "data" and "date".

    Raises:
        WeightsError: no such file, or not one that `mlkd export` wrote.
        ImportError: onnxruntime is not installed.
    """

    def __init__(self, path: str | Path):
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(f"{path}: an ONNX file needs onnxruntime: pip install onnxruntime.") from error
        self.path = Path(path)
        if not self.path.is_file():
            raise WeightsError(f"{path}: no such model file.")
        try:
            self.session = onnxruntime.InferenceSession(self.path, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises errors of many classes
            reason = str(error).splitlines()[0]
            raise WeightsError(f"{path}: not a readable ONNX file ({reason}).") from error
        self.texts: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        self.metadata = ModelMetadata.from_texts(self.texts, path)
        self.classes = self.metadata.classes
        self.image_size = self._image_size()
        thresholds = self.metadata.thresholds
        self.thresholds = None if thresholds is None else np.array(thresholds)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Images (b, 3, S, S) uint8, of the model's image size S, to probabilities (b, q) float32."""
        return self._run("probabilities", images)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Images (b, 3, S, S) uint8, of the model's image size S, to logits (b, q) float32."""
        return self._run("logits", images)

    def _run(self, output: str, images: np.ndarray) -> np.ndarray:
        return self.session.run([output], {"images": np.ascontiguousarray(images)})[0]

    def _image_size(self) -> int:
        """The side of the images that the graph accepts.

        Raises:
            WeightsError: it differs from the file's preprocessing, or the outputs are not one per class.
        """
        size, q = int(self.metadata.preprocessing.get("image_size", 0)), len(self.classes)
        inputs = {node.name: node.shape[1:] for node in self.session.get_inputs()}
        outputs = {node.name: node.shape[1:] for node in self.session.get_outputs()}
        expected = {"images": [3, size, size]}, {"probabilities": [q], "logits": [q]}
        if (inputs, outputs) != expected:
            raise WeightsError(
                f"{self.path}: the graph maps {inputs} to {outputs}; expected {expected[0]} to {expected[1]}, as its "
                f"class names and its preprocessing state. Export the model again."
            )
        return size
