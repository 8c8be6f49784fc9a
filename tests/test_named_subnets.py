"""Sub-networks by name."""

import pytest
from click.testing import CliRunner

from nas2edge.cli import main
from nas2edge.costs import count
from nas2edge.errors import SubnetError, UnknownNameError
from nas2edge.plan import plan
from nas2edge.spaces import load_space
from nas2edge.spaces.published import ALPHANET
from nas2edge.subnet_file import SubnetFile, find_subnet, write_subnet

# Exact multiply-accumulates by the original counters; the README of AlphaNet rounds them to MFLOPs.
MACS = {
    "alphanet-a0": 203_389_568,
    "alphanet-a1": 279_238_816,
    "alphanet-a2": 316_730_080,
    "alphanet-a3": 356_518_400,
    "alphanet-a4": 443_530_752,
    "alphanet-a5-small": 491_481_088,
    "alphanet-a5-base": 594_786_000,
    "alphanet-a6": 709_007_232,
}


def test_the_published_networks_have_the_macs_of_the_original_counter():
    space = load_space("attentivenas")

    assert {net.name: count(plan(space, net.subnet)).macs for net in ALPHANET} == MACS


@pytest.mark.parametrize("name", ["smallest", "largest"])
def test_the_ends_are_of_the_space_that_is_given(name):
    space = load_space("attentivenas")

    assert find_subnet(name, space).subnet == getattr(space, name)()
    assert find_subnet(name).space.name == "tiny"


def test_a_file_must_be_of_the_space_that_is_given(tmp_path):
    path = tmp_path / "s.json"
    tiny = load_space("tiny")
    write_subnet(path, SubnetFile(space=tiny, subnet=tiny.smallest()))

    assert find_subnet(str(path)).subnet == tiny.smallest()
    with pytest.raises(SubnetError, match="width has 7 entries; space 'attentivenas' has 9"):
        find_subnet(str(path), load_space("attentivenas"))


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown sub-network 'alphanet-a33'; did you mean 'alphanet-a3'"):
        find_subnet("alphanet-a33")


def test_show_quotes_the_published_accuracy_as_published():
    result = CliRunner().invoke(main, ["show", "--subnet", "alphanet-a3"])

    assert result.exit_code == 0
    assert "alphanet-a3: published ImageNet top-1 79.41 %" in result.stdout
