"""nas2edge show: a search space with its choices, or the layers of a sub-network with their shapes and costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from nas2edge.additive import AdditiveMetric
from nas2edge.cli._common import echo_json, json_option, result_console
from nas2edge.costs import count, count_macs, count_params
from nas2edge.errors import InputError
from nas2edge.plan import LayerSpec, plan
from nas2edge.space import SearchSpace, SubnetConfig
from nas2edge.spaces import load_space
from nas2edge.spaces.published import ALPHANET, SPACE
from nas2edge.subnet_file import find_subnet
from nas2edge.units import format_count

if TYPE_CHECKING:
    from rich.table import Table


@click.command("show")
@click.option("--space", "space_name", help="A named space, or a .toml file of your own.  [default: tiny]")
@click.option("--supernet", help="Show the space of these weights: a run's folder or file, or builtin:tiny.")
@click.option(
    "--subnet", "subnet_name", help="Show the layers of smallest, largest, alphanet-a0 (to a6) or a subnet.json."
)
@json_option
def command(space_name: str | None, supernet: str | None, subnet_name: str | None, as_json: bool) -> None:
    """Print a search space, or the layers of a sub-network.

    Examples:

    \b
      nas2edge show --space attentivenas
      nas2edge show --subnet subnet.json
    """
    space = _space(space_name, supernet)
    if subnet_name is None:
        space = space or load_space("tiny")
        if as_json:
            echo_json(_space_to_dict(space))
        else:
            _print_space(space)
        return
    file = find_subnet(subnet_name, space)
    if as_json:
        echo_json(_subnet_to_dict(file.space, file.subnet))
    else:
        _print_subnet(file.space, file.subnet)
        published = [net for net in ALPHANET if net.subnet == file.subnet and file.space.name == SPACE]
        for net in published:
            click.echo(
                f"{net.name}: published ImageNet top-1 {net.top1:.2f} % with the weights of AlphaNet, not shipped here"
            )


def _space(space_name: str | None, supernet: str | None) -> SearchSpace | None:
    if space_name and supernet:
        raise InputError("--space and --supernet exclude each other: a supernet brings its own space")
    if supernet:
        from nas2edge.supernet.weights_file import supernet_info

        return supernet_info(supernet).space
    return load_space(space_name) if space_name else None


def _space_to_dict(space: SearchSpace) -> dict[str, Any]:
    ranges = {name: _range(space, name) for name in ("macs", "params")}
    return {
        "format": "nas2edge.shown_space",
        "version": 1,
        "size": space.size,
        "digest": space.digest,
        **{name: {"least": least, "greatest": greatest} for name, (least, greatest) in ranges.items()},
        "space": space.to_dict(),
    }


def _range(space: SearchSpace, name: str) -> tuple[int, int]:
    metric = AdditiveMetric(space, {"macs": count_macs, "params": count_params}[name])
    return int(metric.minimum().value), int(metric.maximum().value)


def _subnet_to_dict(space: SearchSpace, subnet: SubnetConfig) -> dict[str, Any]:
    layers = plan(space, subnet)
    costs = count(layers)
    return {
        "format": "nas2edge.shown_subnet",
        "version": 1,
        "space": space.name,
        "id": subnet.id,
        "subnet": subnet.to_dict(),
        "macs": costs.macs,
        "params": costs.params,
        "peak_activations": costs.peak_activations,
        "layers": [_layer_to_dict(layer) for layer in layers],
    }


def _layer_to_dict(layer: LayerSpec) -> dict[str, Any]:
    return {
        "name": layer.name,
        "key": layer.key,
        "input": [layer.in_chs, layer.hw_in, layer.hw_in],
        "output": _output_shape(layer),
        "macs": count_macs(layer),
        "params": count_params(layer),
    }


def _output_shape(layer: LayerSpec) -> list[int]:
    return [layer.classes] if layer.classes else [layer.out_chs, layer.hw_out, layer.hw_out]


def _print_space(space: SearchSpace) -> None:
    table = _table(f"space {space.name}", first="block")
    for heading in ("width", "depth", "kernel", "expansion", "SE", "stride"):
        table.add_column(heading, justify="right")
    kernel, stride = str(space.stem_kernel_size), str(space.stem_stride)
    table.add_row("stem", _list(space.stem_width), "1", kernel, "-", "-", stride)
    for i, stage in enumerate(space.stages):
        choices = [_list(values) for values in (stage.width, stage.depth, stage.kernel_size, stage.expand_ratio)]
        table.add_row(f"stage {i}", *choices, "yes" if stage.se else "no", str(stage.stride))
    table.add_row("head", _list(space.head_width), "1", "1", str(space.head_expand_ratio), "-", "-")
    console = result_console(as_json=False)
    console.print(table)
    console.print(f"input resolution: {_list(space.resolution)}; {space.num_classes} classes; {space.act}")
    console.print(f"sub-networks: {space.size:,}" + (f" ({space.size:.2g})" if space.size >= 10**6 else ""))
    for title, name in (("MACs", "macs"), ("parameters", "params")):
        least, greatest = _range(space, name)
        console.print(f"{title}: {format_count(least)} to {format_count(greatest)}")


def _print_subnet(space: SearchSpace, subnet: SubnetConfig) -> None:
    layers = plan(space, subnet)
    costs = count(layers)
    table = _table(f"{subnet.id} of space {space.name}, input 3x{subnet.resolution}x{subnet.resolution}", first="layer")
    for heading in ("output", "k/s", "mid", "SE", "shortcut", "MACs", "params"):
        table.add_column(heading, justify="right", no_wrap=True)
    for i, layer in enumerate(layers):
        table.add_row(*_cells(layer), end_section=i == len(layers) - 1)
    table.add_row("total", *[""] * 5, format_count(costs.macs), format_count(costs.params), style="bold")
    console = result_console(as_json=False)
    console.print(table)
    console.print(f"peak activations: {format_count(costs.peak_activations)} values, the greatest of any layer")
    console.print("k/s: kernel and stride; mid: channels after expansion; SE: squeezed channels")


def _cells(layer: LayerSpec) -> list[str]:
    return [
        layer.name,
        "x".join(map(str, _output_shape(layer))),
        f"{layer.kernel_size}/{layer.stride}",
        str(layer.mid_chs),
        str(layer.se_chs or "-"),
        layer.shortcut,
        format_count(count_macs(layer)),
        format_count(count_params(layer)),
    ]


def _table(title: str, *, first: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    return table


def _list(values: Sequence[int]) -> str:
    """Writes choices as 1-4 where they are consecutive, else 16, 24."""
    if len(values) > 2 and list(values) == list(range(values[0], values[-1] + 1)):
        return f"{values[0]}-{values[-1]}"
    return ", ".join(map(str, values))
