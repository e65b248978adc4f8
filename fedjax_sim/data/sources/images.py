"""Folders of images: a folder for each class, or for each client and in it one for each class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_sim.core.errors import fail, require
from fedjax_sim.data.population import Examples
from fedjax_sim.data.sources.base import Found, Split, aligned, library

ENDINGS = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)

Tree = dict[str, dict[str, list[Path]]]
"""Images by client and class; all under one client called "" where there are no clients."""


def matches(path: Path) -> bool:
    """A folder with images in it, two or three levels down."""
    return path.is_dir() and any(map(_is_image, path.rglob("*")))


def read(path: Path, *, size: tuple[int, ...] = (), colour: bool | None = None) -> Found:
    """uint8 ``[n, h, w, 1]`` or ``[n, h, w, 3]``; classes and clients in the order of their names. Needs pillow.

    Args:
      path: a folder of folders, perhaps in ``train`` and ``test``.
      size: height and width that images are scaled to; without it all must have the same.
      colour: three channels or one; by default as the first image has it.
    """
    require(
        len(size) in (0, 2),
        "size is a height and a width",
        got=size,
        fix="give size=[28, 28], or nothing",
        setting="size",
    )
    pillow = library("PIL.Image", "images")
    train = _tree(path / "train" if (path / "train").is_dir() else path)
    test = _tree(path / "test") if (path / "train").is_dir() and (path / "test").is_dir() else {}
    classes = sorted({name for tree in (train, test) for found in tree.values() for name in found})
    first = next(image for found in train.values() for images in found.values() for image in images)
    like = _decoded(
        pillow,
        first,
        size,
        "RGB" if colour or (colour is None and _coloured(pillow, first)) else "L",
    )

    def client(tree: Tree, name: str) -> tuple[np.ndarray, np.ndarray]:
        files = [
            (image, classes.index(label))
            for label, images in tree[name].items()
            for image in images
        ]
        pixels = np.stack([_alike(pillow, image, size, like) for image, _ in files])
        return pixels, np.array([label for _, label in files], np.int32)

    facts: dict[str, Any] = {"classes": len(classes), "about": {"class_names": classes}}
    if "" in train:
        return Found(
            examples=Examples(*client(train, "")),
            global_test=Examples(*client(test, "")) if test else None,
            **facts,
        )
    splits = [
        Split(tuple(tree), lambda name, tree=tree: client(tree, name)) for tree in (train, test)
    ]
    return Found(aligned(*splits), **facts)


def _images(root: Path) -> Iterator[Path]:
    return filter(_is_image, sorted(root.rglob("*")))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and path.is_file()


def _tree(root: Path) -> Tree:
    found: Tree = {}
    depths = set()
    for image in _images(root):
        *client, label = image.relative_to(root).parts[:-1] or ("",)
        depths.add(len(image.relative_to(root).parts))
        found.setdefault("/".join(client), {}).setdefault(label, []).append(image)
    do = f"arrange them as {root.name}/class/image, or {root.name}/client/class/image"
    require(bool(found), "a folder of images needs some", got=f"none below {root}", fix=do)
    got = f"depths {sorted(depths)} below {root}"
    require(
        depths in ({2}, {3}),
        "images must lie in a folder of their class, all at one depth",
        got=got,
        fix=do,
    )
    return found


def _coloured(pillow: Any, path: Path) -> bool:
    with _opened(pillow, path) as image:
        return image.mode not in ("1", "L", "LA")


def _alike(pillow: Any, path: Path, size: tuple[int, ...], like: np.ndarray) -> np.ndarray:
    image = _decoded(pillow, path, size, "RGB" if like.shape[-1] == 3 else "L")
    got = f"{image.shape[:2]} and {like.shape[:2]} ({path.name})"
    require(
        image.shape == like.shape,
        "images must have one size",
        got=got,
        fix="scale them with size=, such as size=[28,28]",
        setting="size",
    )
    return image


def _decoded(pillow: Any, path: Path, size: tuple[int, ...], mode: str) -> np.ndarray:
    with _opened(pillow, path) as image:
        deep = image.mode.startswith(("I", "F"))
        require(
            not deep,
            "only images of 8 bits a channel can be read",
            got=f"mode {image.mode} in {path.name}",
            fix="convert them",
        )
        try:
            pixels = image.convert(mode)
        except (OSError, SyntaxError, ValueError) as error:
            fail(f"{path} is a damaged image", got=error, fix="replace or remove it")
        scaled = pixels.resize((size[1], size[0])) if size else pixels
        return np.asarray(scaled).reshape(scaled.height, scaled.width, -1)


def _opened(pillow: Any, path: Path) -> Any:
    try:
        return pillow.open(path)
    except (OSError, SyntaxError, ValueError) as error:
        fail(f"{path} is no image", got=error, fix="replace or remove it")
