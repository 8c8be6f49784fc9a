"""What is checked of a request before any work is done."""

from __future__ import annotations

from nas2edge.errors import CheckpointError, InputError, UnknownNameError
from nas2edge.export.bundle import check_replaceable
from nas2edge.export.exporter import Exporter
from nas2edge.export.int8 import AUTO
from nas2edge.export.ranges import CALIBRATORS
from nas2edge.export.registry import load_exporter
from nas2edge.export.request import ExportRequest
from nas2edge.export.variant import PRECISIONS
from nas2edge.graph import check_opset
from nas2edge.plan import plan

EXPORTERS = ("own", "torch")
RESTS = ("fp32", "fp16")
HALF_QUANTISERS = 19


def load_targets(request: ExportRequest) -> list[Exporter]:
    """Returns the targets of a request, each with those of its options that it takes.

    Raises:
        UnknownNameError: There is no such target.
        InputError: None of them takes an option.
    """
    if not request.targets:
        raise InputError("no target was asked for; expected at least one")
    taken = {name: type(load_exporter(name)).options for name in request.targets}
    unknown = sorted(request.options.keys() - frozenset().union(*taken.values()))
    if unknown:
        named = " or ".join(repr(name) for name in request.targets)
        raise InputError(f"the target {named} takes no {unknown[0].replace('_', '-')}; leave it out")
    return [
        load_exporter(name, {key: value for key, value in request.options.items() if key in taken[name]})
        for name in dict.fromkeys(request.targets)
    ]


def check_request(request: ExportRequest) -> None:
    """Checks all that can be checked without images.

    Raises:
        InputError: An option is out of range, or the bundle's name is taken.
        UnknownNameError: There is no such precision, calibrator or block.
        CheckpointError: The weights do not fit the sub-network.
    """
    check_opset(request.opset)
    if request.recalibrate == 1:
        raise InputError("recalibrate is 1; one image has no variance: use 2 or more, or 0 to keep the statistics")
    if request.max_drop is not None and not 0 <= request.max_drop <= 100:
        raise InputError(f"max-drop {request.max_drop:g} is out of range; expected 0 to 100 points")
    _check_names(request)
    if request.file.space.digest != request.supernet.info.space.digest:
        raise CheckpointError(
            f"the sub-network is of space {request.file.space.name!r}, the supernet of "
            f"{request.supernet.info.space.name!r} with {request.supernet.info.space.num_classes} classes; "
            "give --supernet the one that it was searched with"
        )
    check_labels(request)
    sha256 = request.supernet.info.sha256
    check_replaceable(request.out, subnet_id=request.file.subnet.id, force=request.force, sha256=sha256)


def check_labels(request: ExportRequest) -> None:
    """Checks that there is one label a class.

    Raises:
        InputError: There are more or fewer, or two are the same.
    """
    labels, classes = request.labels, request.supernet.info.space.num_classes
    if labels is None:
        return
    if len(labels) != classes:
        raise InputError(
            f"there are {len(labels)} labels, and the network has {classes} classes; give one label a line, in the "
            "order of the logits"
        )
    doubled = sorted({label for label in labels if labels.count(label) > 1})
    if doubled:
        raise InputError(f"the label {doubled[0]!r} stands for more than one class; expected {classes} that differ")


def _check_names(request: ExportRequest) -> None:
    for name in request.precisions:
        if name not in PRECISIONS:
            raise UnknownNameError("precision", name, PRECISIONS)
    if request.int8_rest not in RESTS:
        raise UnknownNameError("precision beside int8", request.int8_rest, RESTS)
    if request.int8_rest == "fp16" and "int8" in request.precisions and request.opset < HALF_QUANTISERS:
        raise InputError(
            f"int8 beside fp16 needs opset {HALF_QUANTISERS} or newer, and the opset is {request.opset}: before, "
            f"QuantizeLinear knows float32 only; give --opset {HALF_QUANTISERS}"
        )
    if request.exporter not in EXPORTERS:
        raise UnknownNameError("exporter", request.exporter, EXPORTERS)
    if request.calibrator not in (AUTO, *CALIBRATORS):
        raise UnknownNameError("calibrator", request.calibrator, (AUTO, *CALIBRATORS))
    layers = plan(request.file.space, request.file.subnet)
    known = [name for layer in layers for name in (layer.name, *(f"{layer.name}.{op.name}" for op in layer.ops))]
    for name in request.keep_fp32:
        if name not in known:
            raise UnknownNameError("block", name, known, see="nas2edge show SUBNET")
