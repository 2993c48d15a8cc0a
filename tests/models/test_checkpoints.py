from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from robusteval.models.build import build_classifier
from robusteval.models.checkpoint_info import METADATA_KEY, CheckpointInfo, inspect_checkpoint
from robusteval.models.checkpoints import encode_checkpoint, load_checkpoint, save_checkpoint
from robusteval.models.classifier import Classifier
from robusteval.schema.digest import sha256_hex
from robusteval.schema.errors import CheckpointError
from robusteval.schema.types import Component

SMALL = Component(name="small-cnn", params={"width": 1})


def _model(seed: int = 0, classes: int = 3) -> Classifier:
    return build_classifier(
        SMALL, classes=classes, input_shape=(1, 8, 8), mean=(0.485,), std=(0.229,), seed=seed
    ).eval()


def _saved(**options: Any) -> bytes:
    return save_checkpoint(_model(), SMALL, **({"class_names": ("a", "b", "c")} | options))


GOOD = _saved()


def test_a_checkpoint_says_everything_that_the_weights_do_not() -> None:
    data = _saved(extra={"licence": "CC0-1.0", "source": "this test", "notes": "none"})
    info = inspect_checkpoint(data)
    assert info == CheckpointInfo(
        architecture=SMALL,
        classes=3,
        class_names=("a", "b", "c"),
        input_shape=(1, 8, 8),
        mean=(0.485,),
        std=(0.229,),
        licence="CC0-1.0",
        source="this test",
        notes="none",
    )
    model, loaded = load_checkpoint(data, source="m")
    assert loaded == info
    assert not model.training
    assert model.input_shape == (1, 8, 8)
    assert torch.equal(model.mean, _model().mean)
    assert torch.equal(model.std, _model().std)


def test_equal_weights_give_equal_bytes_in_every_process() -> None:
    code = (
        "from robusteval.models.build import build_classifier;"
        "from robusteval.models.checkpoints import save_checkpoint;"
        "from robusteval.schema.types import Component; from robusteval.schema.digest import sha256_hex;"
        "c = Component(name='small-cnn', params={'width': 1});"
        "m = build_classifier(c, classes=3, input_shape=(1, 8, 8), mean=(0.485,), std=(0.229,), seed=0);"
        "print(sha256_hex(save_checkpoint(m, c, class_names=('a', 'b', 'c'))))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == sha256_hex(_saved())
    assert sha256_hex(_saved()) == sha256_hex(_saved())


def test_another_weight_name_or_mean_gives_other_bytes() -> None:
    model = _model()
    with torch.no_grad():
        model.network.linear.bias[0] += 1e-6
    others = [save_checkpoint(model, SMALL, class_names=("a", "b", "c")), _saved(class_names=("a", "b", "d"))]
    assert len({_saved(), *others, _saved(class_names=None)}) == 4


def test_default_parameters_are_written_out() -> None:
    model = build_classifier(
        Component(name="small-cnn"), classes=3, input_shape=(1, 8, 8), mean=(0.5,), std=(0.5,), seed=0
    )
    info = inspect_checkpoint(save_checkpoint(model, Component(name="small-cnn"), class_names=None))
    assert info.architecture.params == {"width": 16}
    assert info.class_names is None


def test_a_layer_left_in_the_network_cannot_be_saved() -> None:
    model = _model()
    model.network.layer1 = nn.Sequential(model.network.layer1, nn.BatchNorm2d(2))
    with pytest.raises(CheckpointError, match=r"layer1\.conv\.weight is missing; .* and \d+ more"):
        save_checkpoint(model, SMALL, class_names=None)


def test_weights_of_other_shapes_do_not_fit() -> None:
    info = inspect_checkpoint(_saved())
    with pytest.raises(CheckpointError, match=r"linear\.weight has shape \(5, 16\), not \(3, 16\)"):
        encode_checkpoint(info, _model(classes=5).network.state_dict())


def test_every_truncation_is_a_checkpoint_error() -> None:
    data = _saved()
    for length in [*range(64), *range(64, len(data), 37), len(data) - 1]:
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(data[:length], source="m.safetensors")
        assert str(caught.value).startswith("m.safetensors: ")
        assert "\n" not in str(caught.value)


def test_appended_bytes_are_noticed() -> None:
    with pytest.raises(CheckpointError):
        load_checkpoint(_saved() + b"\x00", source="m")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_byte_is_noticed_or_changes_nothing(data: st.DataObject) -> None:
    good = GOOD
    position = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[position] ^= data.draw(st.integers(1, 255))
    try:
        model, info = load_checkpoint(bytes(bad), source="m")
    except CheckpointError as error:
        assert "\n" not in str(error)
    else:  # white space in the JSON header
        assert info == inspect_checkpoint(good)
        assert save_checkpoint(model, info.architecture, class_names=info.class_names) == good


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_checkpoint_error(data: bytes) -> None:
    with pytest.raises(CheckpointError):
        load_checkpoint(data, source="m")


def test_a_flipped_weight_is_noticed() -> None:
    data = bytearray(_saved())
    data[-3] ^= 1
    with pytest.raises(CheckpointError, match="its digest does not match"):
        load_checkpoint(bytes(data), source="m")


def test_weights_without_metadata_are_refused_with_the_way_to_import_them() -> None:
    with pytest.raises(CheckpointError, match=r"robusteval import-weights bare\.safetensors"):
        load_checkpoint(save(_model().network.state_dict()), source="bare.safetensors")


def test_a_pickle_is_never_opened() -> None:
    file = io.BytesIO()
    torch.save({"state_dict": _model().network.state_dict()}, file)
    with pytest.raises(CheckpointError, match="pickle checkpoint"):
        load_checkpoint(file.getvalue(), source="old.pth")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [(b"small-cnn", b"small-cno", "digest"), (b'\\"width\\":1', b'\\"width\\":2', "digest")],
)
def test_metadata_that_was_edited_is_noticed(old: bytes, new: bytes, message: str) -> None:
    data = _saved()
    assert data.count(old) == 1
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(data.replace(old, new), source="m")


def test_an_architecture_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from robusteval.models import ARCHITECTURES
    from robusteval.schema.registry import Entry

    plug_in = Entry("plug-in-net", "robusteval.models.small:SmallCnn", "")
    with monkeypatch.context() as patch:
        patch.setitem(ARCHITECTURES._entries, "plug-in-net", plug_in)
        data = save_checkpoint(_model(), Component(name="plug-in-net", params={"width": 1}), class_names=None)
    with pytest.raises(CheckpointError, match=r"m: unknown architecture 'plug-in-net'"):
        load_checkpoint(data, source="m")


def test_the_header_has_one_metadata_entry() -> None:
    from robusteval.models.checkpoint_info import read_header

    assert list(read_header(_saved(), source="m")["__metadata__"]) == [METADATA_KEY]
