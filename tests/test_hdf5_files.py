import io

import h5py
import hostile_files
import numpy as np
import pytest

from graft.hdf5_files import check_weights
from graft.storage import ArtifactError


@pytest.mark.parametrize("what", hostile_files.hostile_weights())
def test_weights_of_a_stranger_are_refused_in_one_line(tmp_path, what):
    path = tmp_path / "weights.h5"
    hostile_files.hostile_weights()[what](path)
    with pytest.raises(ArtifactError, match=rf"^{path} is (refused|not a readable file of weights): .+$"):
        check_weights(path)


def test_the_numbers_of_a_file_are_counted(tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(hostile_files.weights())
    assert check_weights(path) == 3 * 2 + 2
    assert check_weights(path, io.BytesIO(path.read_bytes())) == 8


def test_packed_and_empty_and_half_precision_weights_are_plain(tmp_path):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("packed", data=np.arange(1000.0), compression="gzip", shuffle=True, fletcher32=True)
        file.create_dataset("quick", data=np.arange(1000.0), compression="lzf")
        file.create_dataset("empty", data=np.zeros((0, 3), np.float32))
        file.create_dataset("half", data=np.zeros(5, np.float16))
        file.create_dataset("brain", data=np.zeros(5, "V2"))  # bfloat16, as Keras keeps it
        file.create_dataset("one", data=1)
        file.attrs["layer_names"] = ["dense"]
    assert check_weights(path) == 2011


def test_the_first_data_set_that_is_wrong_is_named(tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(hostile_files.weights())
    with h5py.File(path, "a") as file:
        file["layers/dense/vars/2"] = h5py.ExternalLink("/etc/passwd", "/x")
    with pytest.raises(ArtifactError, match=r": '/layers/dense/vars/2' is a link to another place or file$"):
        check_weights(path)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"none\.h5 is missing"):
        check_weights(tmp_path / "none.h5")
