"""NYUD, PASCAL-Context and Cityscapes from folders, as NumPy arrays in the forms that transforms.py takes.

NYUD and PASCAL-Context lie as in Multi-Task-Learning-PyTorch (Vandenhende et al., TPAMI 2021) and ASTMT (Maninis et
al., CVPR 2019) before it, Cityscapes as its authors give it out; LAYOUT of each class shows it. All files that the
wanted tasks need are looked for when a data set is made, so that nothing is missing in the middle of a run.

Normals are stored with x to the right, y down and z towards the viewer, and are given with y up (tasks.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat
from scipy.ndimage import laplace
from skimage.morphology import thin

from m3vit.config import ConfigError
from m3vit.tasks import IGNORE

Labels = NDArray[np.uint8]
Floats = NDArray[np.float32]


class DataError(ConfigError):
    """What is missing of a data set."""


class Folder:
    """What the three have in common. A picture's file is that of its kind, with {} for the picture's identifier."""

    LAYOUT: ClassVar[str]
    FILES: ClassVar[Mapping[str, tuple[str, ...]]]  # by kind of file; of several the first that there is
    NEEDS: ClassVar[Mapping[str, tuple[str, ...]]]  # kinds of files, by task

    def __init__(self, root: Path, split: str, tasks: Sequence[str], count: int = 0) -> None:
        """count: how many pictures of the split, from its first on; 0: all."""
        name = type(self).__name__
        for task in tasks:
            if task not in self.NEEDS:
                raise DataError(f"{name} has no labels for {task}; it has them for {', '.join(self.NEEDS)}")
        self.root, self.split, self.tasks = Path(root), split, tuple(tasks)
        if not self.root.is_dir():
            raise self.missing(f"there is no folder {self.root}")
        identifiers = self.identifiers()
        if len(identifiers) < max(count, 1):
            raise self.missing(f"{len(identifiers)} pictures in split {split!r}, {max(count, 1)} wanted")
        self.of = identifiers[: count or None]
        kinds = {"image", *(kind for task in tasks for kind in self.NEEDS[task])}
        lacking = [(i, kind) for i in self.of for kind in sorted(kinds) if self.find(kind, i) is None]
        if lacking:
            identifier, kind = lacking[0]
            first = " or ".join(str(self.root / form.format(identifier)) for form in self.FILES[kind])
            more = f" and {len(lacking) - 1} others" if len(lacking) > 1 else ""
            raise self.missing(f"there is no {first}{more}")

    def missing(self, what: str) -> DataError:
        return DataError(f"{type(self).__name__}: {what}\nThe folder should have:\n{self.LAYOUT}")

    def identifiers(self) -> list[str]:
        """Of the split's pictures, in their order."""
        raise NotImplementedError

    def label(self, task: str, identifier: str) -> NDArray[Any]:
        """As it is stored, and in the form of tasks.py."""
        raise NotImplementedError

    def find(self, kind: str, identifier: str) -> Path | None:
        paths = (self.root / form.format(identifier) for form in self.FILES[kind])
        return next((path for path in paths if path.is_file()), None)

    def path(self, kind: str, identifier: str) -> Path:
        found = self.find(kind, identifier)
        if found is None:
            raise self.missing(f"the {kind} file of {identifier} is gone")
        return found

    def lines(self, name: str) -> list[str]:
        """Of a text file, without empty ones."""
        path = self.root / name
        if not path.is_file():
            raise self.missing(f"there is no {path}")
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]

    def __len__(self) -> int:
        return len(self.of)

    def name(self, index: int) -> str:
        return self.of[index].rsplit("/", 1)[-1]

    def __getitem__(self, index: int) -> dict[str, NDArray[Any]]:
        if not 0 <= index < len(self.of):
            raise IndexError(index)
        identifier = self.of[index]
        with Image.open(self.path("image", identifier)) as file:
            image = np.array(file.convert("RGB"))
        labels = {task: fit(self.label(task, identifier), image.shape[:2]) for task in self.tasks}
        return {"image": image, **labels}


def picture(path: Path) -> NDArray[Any]:
    """Values as they are stored: numbers of a palette, not its colours."""
    with Image.open(path) as file:
        return np.array(file)


def fit(array: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    """A label of another size than its picture's: nearest values."""
    if array.shape[:2] == size:
        return array
    row, column = (((np.arange(n) + 0.5) * m / n).astype(np.int64) for n, m in zip(size, array.shape[:2], strict=True))
    return array[row[:, None], column]


def turned_up(normals: NDArray[Any]) -> Floats:
    """From y down to y up."""
    return np.nan_to_num(normals).astype(np.float32) * np.array([1, -1, 1], np.float32)


# ---- NYUD -----------------------------------------------------------------------------------------


class Nyud(Folder):
    """795 and 654 pictures of rooms: 40 classes, depth, normals, edges."""

    LAYOUT = """\
  gt_sets/train.txt, val.txt    a picture's ID in each line
  images/ID.jpg
  segmentation/ID.png           0: not labelled, 1 to 40: the class
  depth/ID.npy                  [H, W], metres
  normals/ID.npy                [H, W, 3]
  edge/ID.npy                   [H, W], 1: edge"""
    FILES: ClassVar = {
        "image": ("images/{}.jpg",),
        "semseg": ("segmentation/{}.png",),
        "depth": ("depth/{}.npy",),
        "normals": ("normals/{}.npy",),
        "edge": ("edge/{}.npy",),
    }
    NEEDS: ClassVar = {task: (task,) for task in ("semseg", "depth", "normals", "edge")}

    def identifiers(self) -> list[str]:
        return self.lines(f"gt_sets/{self.split}.txt")

    def label(self, task: str, identifier: str) -> NDArray[Any]:
        path = self.path(task, identifier)
        if task == "semseg":
            return picture(path).astype(np.uint8) - np.uint8(1)  # 0 becomes 255
        values = np.load(path)
        if task == "normals":
            return turned_up(values)
        if task == "depth":
            return np.nan_to_num(values).astype(np.float32).reshape(values.shape[:2])
        return np.where(values == IGNORE, IGNORE, values != 0).astype(np.uint8).reshape(values.shape[:2])


# ---- PASCAL-Context -------------------------------------------------------------------------------

PERSON = 15  # among the classes of VOC
PARTS = (  # their names in PASCAL-Part, by number
    "",
    "hair head lear rear lebrow rebrow leye reye mouth nose",
    "torso neck",
    "luarm ruarm",
    "llarm rlarm lhand rhand",
    "luleg ruleg",
    "llleg rlleg lfoot rfoot",
)
PART = {name: number for number, names in enumerate(PARTS) for name in names.split()}
# Classes of PASCAL-Context whose names NYUD has too, and tvmonitor: the network that found the normals was trained
# there, and they count for no others.
KNOWN_INDOORS = """
    3 4 6 9 10 11 13 15 17 18 22 23 29 30 33 34 36 37 38 39 41 43 46 49 50 51 53 55 56 59 61 62 65 66 68 69 72 73 78
    83 84 85 87 88 95 96 100 104 105 107 111 113 115 122 124 135 141 142 143 146 150 154 157 158 159 165 172 174 181
    183 184 191 193 195 197 199 202 213 215 216 219 220 223 225 228 230 232 233 238 239 242 243 246 250 251 252 255
    260 261 263 269 272 273 275 281 283 284 285 286 287 288 290 291 292 293 295 304 307 309 310 314 315 319 323 329
    330 331 336 342 345 349 350 351 352 355 357 368 370 371 374 379 380 383 384 397 401 403 405 407 408 411 412 413
    414 417 419 421 423 427 429 430 432 440 441 442 443 444 446 454 457
"""
WITH_NORMALS = tuple(int(number) for number in KNOWN_INDOORS.split())


class Pascal(Folder):
    """4998 and 5105 pictures of everything: 21 classes, human parts, saliency, edges, normals. Edges are where
    the classes of PASCAL-Context change; saliency and normals are what other networks found."""

    LAYOUT = """\
  ImageSets/Context/train.txt, val.txt             a picture's ID in each line
  JPEGImages/ID.jpg
  semseg/VOC12/ID.png or semseg/pascal-context/ID.png   0 to 20: the class, 255: not labelled
  human_parts/ID.mat                               PASCAL-Part's anno: objects and their parts
  sal_distill/ID.png                               above 127: salient
  normals_distill/ID.png                           -1 to 1 as 0 to 255
  pascal-context/trainval/ID.mat                   LabelMap, 1 to 459: the class (for edge and normals)"""
    FILES: ClassVar = {
        "image": ("JPEGImages/{}.jpg",),
        "semseg": ("semseg/VOC12/{}.png", "semseg/pascal-context/{}.png"),
        "human_parts": ("human_parts/{}.mat",),
        "sal": ("sal_distill/{}.png",),
        "normals": ("normals_distill/{}.png",),
        "context": ("pascal-context/trainval/{}.mat",),
    }
    NEEDS: ClassVar = {
        "semseg": ("semseg",),
        "human_parts": ("human_parts",),
        "sal": ("sal",),
        "edge": ("context",),
        "normals": ("normals", "context"),
    }

    def identifiers(self) -> list[str]:
        return self.lines(f"ImageSets/Context/{self.split}.txt")

    def label(self, task: str, identifier: str) -> NDArray[Any]:
        if task == "semseg":
            return picture(self.path("semseg", identifier)).astype(np.uint8)
        if task == "sal":
            return (picture(self.path("sal", identifier)) > 127).astype(np.uint8)
        if task == "human_parts":
            return human_parts(loadmat(self.path("human_parts", identifier), simplify_cells=True)["anno"])
        context = loadmat(self.path("context", identifier))["LabelMap"]
        if task == "edge":
            return borders(context)
        colours = picture(self.path("normals", identifier))
        known = fit(np.isin(context, WITH_NORMALS), colours.shape[:2])
        return turned_up(colours / 127.5 - 1) * known[..., None]


def human_parts(annotation: Mapping[str, Any]) -> Labels:
    """Of a PASCAL-Part annotation. A picture with no part of a person is not judged at all."""
    parts: Labels | None = None
    for thing in items(annotation["objects"]):
        mask = np.asarray(thing["mask"])
        if parts is None:
            parts = np.zeros(mask.shape, np.uint8)
        if int(thing["class_ind"]) == PERSON:
            for part in items(thing["parts"]):
                parts[np.asarray(part["mask"]) != 0] = PART[part["part_name"]]
    if parts is None or not parts.any():
        return np.full(parts.shape if parts is not None else (1, 1), IGNORE, np.uint8)
    return parts


def items(value: Any) -> Iterable[Any]:
    """A MATLAB array of structs: none, one or several."""
    return [value] if isinstance(value, dict) else value


def borders(labels: NDArray[Any]) -> Labels:
    """One pixel wide: where the Laplacian of the class numbers is not 0, thinned."""
    change = laplace(labels.astype(np.float64), mode="mirror") != 0
    return np.asarray(thin(change), np.uint8)  # type: ignore[no-untyped-call]


# ---- Cityscapes -----------------------------------------------------------------------------------

TRAIN_IDS = np.full(256, IGNORE, np.uint8)  # of the 19 classes that are judged, by the number in the files
TRAIN_IDS[[7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]] = np.arange(19)
FARTHEST = 300.0  # metres; what seems farther has a disparity near that of its noise, and is not judged


class Cityscapes(Folder):
    """2975 and 500 pictures of streets: 19 classes, depth."""

    LAYOUT = """\
  leftImg8bit/SPLIT/CITY/ID_leftImg8bit.png
  gtFine/SPLIT/CITY/ID_gtFine_labelIds.png
  disparity/SPLIT/CITY/ID_disparity.png   16 bits: 1 + 256 disparity in pixels, 0: not known
  camera/SPLIT/CITY/ID_camera.json        baseline and focal length"""
    FILES: ClassVar = {
        "image": ("leftImg8bit/{}_leftImg8bit.png",),
        "semseg": ("gtFine/{}_gtFine_labelIds.png",),
        "disparity": ("disparity/{}_disparity.png",),
        "camera": ("camera/{}_camera.json",),
    }
    NEEDS: ClassVar = {"semseg": ("semseg",), "depth": ("disparity", "camera")}

    def identifiers(self) -> list[str]:
        end = "_leftImg8bit.png"
        folder = self.root / "leftImg8bit"
        if not (folder / self.split).is_dir():
            raise self.missing(f"there is no folder {folder / self.split}")
        paths = folder.glob(f"{self.split}/*/*{end}")
        return sorted(path.relative_to(folder).as_posix().removesuffix(end) for path in paths)

    def label(self, task: str, identifier: str) -> NDArray[Any]:
        if task == "semseg":
            return TRAIN_IDS[picture(self.path("semseg", identifier)).astype(np.uint8)]
        stored = picture(self.path("disparity", identifier)).astype(np.float32)
        camera = json.loads(self.path("camera", identifier).read_text(encoding="utf-8"))
        length = camera["extrinsic"]["baseline"] * camera["intrinsic"]["fx"]  # metres times pixels
        disparity = (stored - 1) / 256
        near = disparity * FARTHEST >= length
        return np.where(near, length / np.where(near, disparity, 1), 0).astype(np.float32)
