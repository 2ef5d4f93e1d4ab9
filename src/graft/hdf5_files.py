"""Files of weights, looked through before Keras reads them: HDF5 can lead to other files, and claim any size."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from graft.keras_configs import check_old_config
from graft.storage import ArtifactError

if TYPE_CHECKING:
    import h5py

MAX_RATIO = 200  # of a data set's bytes to those that are stored of it
HARMLESS = 10 * 2**20  # bytes, up to which nothing is a bomb
MOST_OBJECTS, MOST_DEPTH = 200_000, 100  # groups and data sets; groups within each other
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}  # those that need no plug-in
NUMBERS = "fiub"  # kinds of NumPy's types


def check_weights(path: Path, content: IO[bytes] | None = None) -> int:
    """Refuse what is no plain file of numbers; returns how many numbers it holds.

    Args:
        path: of the file, or of the one that holds the content.
        content: to look through in place of the file at path.

    Raises:
        ArtifactError: the file is damaged, leads out of itself, claims more than it stores, holds something other than
            numbers, or is a whole model with code.
    """
    import h5py

    try:
        with h5py.File(content or path, "r") as file:
            size = content.seek(0, 2) if content else path.stat().st_size
            walk = _Walk(path, size)
            walk.group(file, "", 0)
            config = file.attrs.get("model_config")
            if config is not None:
                check_old_config(config if isinstance(config, bytes) else str(config).encode(), path)
            return walk.numbers
    except ArtifactError:
        raise
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; `dvc repro` makes it") from None
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, MemoryError, RecursionError) as error:
        raise ArtifactError(f"{path} is not a readable file of weights: {str(error)[:200]}") from None


class _Walk:
    """Every object of a file, once."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size
        self._seen: set[Any] = set()
        self._stored = 0
        self.numbers = 0

    def group(self, group: h5py.Group, name: str, depth: int) -> None:
        import h5py

        if depth > MOST_DEPTH:
            raise self._refused(name, f"stands deeper than {MOST_DEPTH} groups")
        for child in group:
            inner = f"{name}/{child}"
            if not isinstance(group.get(child, getlink=True), h5py.HardLink):
                raise self._refused(inner, "is a link to another place or file")
            item = group[child]
            address = h5py.h5o.get_info(item.id).addr
            if address in self._seen:
                raise self._refused(inner, "stands in it twice")
            self._seen.add(address)
            if len(self._seen) > MOST_OBJECTS:
                raise self._refused(inner, f"is one of more than {MOST_OBJECTS:,} objects")
            if isinstance(item, h5py.Group):
                self.group(item, inner, depth + 1)
            elif isinstance(item, h5py.Dataset):
                self._dataset(item, inner)
            else:
                raise self._refused(inner, "is neither a group nor a data set")

    def _dataset(self, dataset: h5py.Dataset, name: str) -> None:
        if dataset.external or dataset.is_virtual:
            raise self._refused(name, "is kept in another file")
        kind = dataset.dtype
        half = kind.kind == "V" and kind.itemsize == 2 and kind.names is None  # bfloat16
        if kind.kind not in NUMBERS and not half:
            raise self._refused(name, f"must hold numbers, received {str(kind)[:80]}")
        plan = dataset.id.get_create_plist()
        filters = [plan.get_filter(index)[0] for index in range(plan.get_nfilters())]
        if unknown := [number for number in filters if number not in FILTERS]:
            raise self._refused(
                name, f"is packed by filter {unknown[0]}; those known are {', '.join(FILTERS.values())}"
            )
        stored, claimed = dataset.id.get_storage_size(), dataset.nbytes
        self._stored += stored
        self.numbers += dataset.size or 0
        if claimed > max(HARMLESS, MAX_RATIO * stored) or self._stored > self._size:
            raise self._refused(name, f"claims {claimed:,} bytes and stores {stored:,} in a file of {self._size:,}")

    def _refused(self, name: str, why: str) -> ArtifactError:
        return ArtifactError(f"{self._path} is refused: {name[:200]!r} {why}")
