"""Scenes: drawn pictures of everyday places with 20 classes of objects, written as a Pascal VOC folder.

    from mlkd import scenes
    root = scenes.folder()              # drawn once, then kept in the cache
    drawing = scenes.draw(0, "test", 7)  # one picture, without any file

The pictures are the same for the same seed on every machine. The split "context_shift" has the
same objects in the same style and as often, but together by chance and in places where they do not live.
"""

from mlkd.scenes.compose import VERSION, Drawing, draw
from mlkd.scenes.files import SPLITS, folder, write
from mlkd.scenes.kinds import CLASSES

__all__ = ["CLASSES", "SPLITS", "VERSION", "Drawing", "draw", "folder", "write"]
