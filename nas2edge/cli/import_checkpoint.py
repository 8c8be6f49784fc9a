"""nas2edge import: somebody else's supernet as a run of ours."""

from __future__ import annotations

from pathlib import Path

import click

from nas2edge.cli._common import echo_json, json_option
from nas2edge.errors import InputError
from nas2edge.optional import require


@click.command("import")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["alphanet"]),
    default="alphanet",
    show_default=True,
    help="alphanet reads the published checkpoints of AlphaNet and AttentiveNAS.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The run's folder; it must not hold one yet."
)
@json_option
def command(checkpoint: Path, kind: str, out: Path, as_json: bool) -> None:
    """Read a published checkpoint into a run's folder.

    The file is read without running anything in it: whatever is neither a tensor nor a plain container is refused.
    Its batch-normalisation statistics are those of initialisation, so search and export need images to recalibrate on:
    give them --data with the splits calibration and validation.

    Example: nas2edge import alphanet_pretrained.pth.tar --out runs/alphanet
    """
    require("torch", extra="train", purpose="importing a supernet")
    from nas2edge.supernet.checkpoint import save_supernet
    from nas2edge.supernet.released import PREPROCESS, import_alphanet
    from nas2edge.supernet.weights_file import WEIGHTS_NAME

    weights = out / WEIGHTS_NAME
    if weights.exists():
        raise InputError(f"{weights} exists; give --out a new folder, or remove it")
    model = import_alphanet(checkpoint)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise InputError(f"cannot make the run's folder {out}: {err.strerror}") from err
    classes = tuple(map(str, range(model.space.num_classes)))
    save_supernet(
        weights,
        model,
        classes=classes,
        preprocess=PREPROCESS,
        trained={"imported_from": checkpoint.name, "format": kind},
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if as_json:
        echo_json({"format": "nas2edge.import", "version": 1, "weights": str(weights), "parameters": parameters})
    else:
        click.echo(
            f"wrote {weights} ({parameters:,} parameters)\nnext: nas2edge evaluate --supernet {out} --data IMAGES"
        )
