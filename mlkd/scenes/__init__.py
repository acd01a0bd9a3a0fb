"""The synthetic `scenes` data set: images of everyday scenes with objects of 20 classes, as a Pascal VOC folder.

    from mlkd import scenes
    scenes.write("scenes/")                   # the whole data set
    scene = scenes.draw_scene(0, "test", 7)   # one image with its boxes, no file

The same seed gives the same images on every machine. In the split "context_shift" the objects have the same
appearance and frequency, but they co-occur at random and appear in unusual layouts.

This package imports nothing else of mlkd. `load_data("scenes")` writes the folder into the cache and reads it.
"""

from mlkd.scenes.compose import VERSION, Scene, draw_scene
from mlkd.scenes.files import SPLITS, write
from mlkd.scenes.kinds import CLASSES

__all__ = ["CLASSES", "SPLITS", "VERSION", "Scene", "draw_scene", "write"]
