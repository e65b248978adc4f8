"""Reader of folders of images: one folder per class, or one per client with one per class in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedjax_sim.core.errors import fail, require
from fedjax_sim.data.population import Examples
from fedjax_sim.data.sources.base import SourceData, Split, aligned, import_library

ENDINGS = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)

Tree = dict[str, dict[str, list[Path]]]
"""Image files by client and class; a folder without clients has one client, called ""."""


def matches(path: Path) -> bool:
    """Whether the path is a folder with image files at any depth."""
    return path.is_dir() and any(map(_is_image, path.rglob("*")))


def read(path: Path, *, size: tuple[int, ...] = (), colour: bool | None = None) -> SourceData:
    """Reads images as uint8 ``[n, h, w, 1]`` or ``[n, h, w, 3]``. Needs pillow.

    Classes and clients are in the order of their names.

    Args:
      path: a folder of folders, or a folder with such folders called ``train`` and ``test``.
      size: height and width in pixels that images are scaled to; without it all images must have
        one size.
      colour: whether to read three channels and not one; by default what the first image has.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from PIL import Image
      >>> from fedjax_sim.data.sources.images import read
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     for name in ("cat", "dog"):
      ...         Path(folder, name).mkdir()
      ...         Image.new("L", (4, 3)).save(Path(folder, name, "1.png"))
      ...     source = read(Path(folder))
      >>> source.examples.x.shape, source.about["class_names"]
      ((2, 3, 4, 1), ['cat', 'dog'])
    """
    require(
        len(size) in (0, 2),
        "size must be a height and a width",
        got=size,
        fix="give size=[28, 28], or nothing",
        setting="size",
    )
    pillow = import_library("PIL.Image", "images")
    has_splits = (path / "train").is_dir()
    train = _tree(path / "train" if has_splits else path)
    test = _tree(path / "test") if has_splits and (path / "test").is_dir() else {}
    classes = sorted(
        {name for tree in (train, test) for client in tree.values() for name in client}
    )
    first = next(file for client in train.values() for files in client.values() for file in files)
    in_colour = _in_colour(pillow, first) if colour is None else colour
    reference = _decode(pillow, first, size, "RGB" if in_colour else "L")

    def read_client(tree: Tree, name: str) -> tuple[np.ndarray, np.ndarray]:
        files = [
            (file, classes.index(label)) for label, files in tree[name].items() for file in files
        ]
        pixels = np.stack([_decode_like(pillow, file, size, reference) for file, _ in files])
        return pixels, np.array([label for _, label in files], np.int32)

    facts: dict[str, Any] = {"classes": len(classes), "about": {"class_names": classes}}
    if "" in train:
        return SourceData(
            examples=Examples(*read_client(train, "")),
            global_test=Examples(*read_client(test, "")) if test else None,
            **facts,
        )
    splits = [
        Split(tuple(tree), lambda name, tree=tree: read_client(tree, name))
        for tree in (train, test)
    ]
    return SourceData(aligned(*splits), **facts)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and path.is_file()


def _tree(root: Path) -> Tree:
    tree: Tree = {}
    depths = set()
    for image in filter(_is_image, sorted(root.rglob("*"))):
        *client, label = image.relative_to(root).parts[:-1] or ("",)
        depths.add(len(image.relative_to(root).parts))
        tree.setdefault("/".join(client), {}).setdefault(label, []).append(image)
    fix = f"arrange them as {root.name}/class/image, or {root.name}/client/class/image"
    require(
        bool(tree), "a folder of images needs at least one image", got=f"none below {root}", fix=fix
    )
    require(
        depths in ({2}, {3}),
        "images must lie in a folder of their class, all at one depth",
        got=f"depths {sorted(depths)} below {root}",
        fix=fix,
    )
    return tree


def _in_colour(pillow: Any, path: Path) -> bool:
    with _open(pillow, path) as image:
        return image.mode not in ("1", "L", "LA")


def _decode_like(
    pillow: Any, path: Path, size: tuple[int, ...], reference: np.ndarray
) -> np.ndarray:
    """Decodes an image, which must have the shape of the reference image ``[h, w, channels]``."""
    image = _decode(pillow, path, size, "RGB" if reference.shape[-1] == 3 else "L")
    require(
        image.shape == reference.shape,
        "images must have one size",
        got=f"{image.shape[:2]} and {reference.shape[:2]} ({path.name})",
        fix="scale them with size=, such as size=[28,28]",
        setting="size",
    )
    return image


def _decode(pillow: Any, path: Path, size: tuple[int, ...], mode: str) -> np.ndarray:
    """Returns the pixels of an image file, uint8 ``[h, w, channels]``.

    Args:
      pillow: the module PIL.Image.
      path: the file.
      size: height and width to scale to; ``()`` keeps the size.
      mode: ``"RGB"`` or ``"L"``.
    """
    with _open(pillow, path) as image:
        require(
            not image.mode.startswith(("I", "F")),
            "only images of 8 bits per channel can be read",
            got=f"mode {image.mode} in {path.name}",
            fix="convert them",
        )
        try:
            pixels = image.convert(mode)
        except (OSError, SyntaxError, ValueError) as error:
            fail(f"{path} is a damaged image", got=error, fix="replace or remove it")
        scaled = pixels.resize((size[1], size[0])) if size else pixels
        return np.asarray(scaled).reshape(scaled.height, scaled.width, -1)


def _open(pillow: Any, path: Path) -> Any:
    try:
        return pillow.open(path)
    except (OSError, SyntaxError, ValueError) as error:
        fail(f"{path} is not an image", got=error, fix="replace or remove it")
