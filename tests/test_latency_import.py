"""Files of other tools, made here after the formats of their projects, become rows or are named with the reason."""

import json

import pytest
from click.testing import CliRunner

from nas2edge import load_space, plan
from nas2edge.cli import main
from nas2edge.errors import FormatError, MissingDependencyError, TableError, UnknownNameError
from nas2edge.latency import read_table
from nas2edge.latency.foreign_lists import layer_from_key
from nas2edge.latency.imported import read_foreign

OFA = """\
Conv-input:160x160x3-output:80x80x24: {count: 498, mean: 0.5, std: 0.01}
expanded_conv-input:80x80x24-output:80x80x24-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0:
  {count: 100, mean: 0.8, std: 0.08}
expanded_conv-input:80x80x24-output:40x40x32-expand:96-kernel:5-stride:2-idskip:0-se:1-hs:1:
  {count: 100, mean: 1.5, std: 0.01}
Conv_1-input:5x5x192-output:5x5x1152: {count: 498, mean: 0.4, std: 0.03}
AvgPool2D-input:5x5x1152-output:1x1x1152: {count: 491, mean: 0.1, std: 0.0}
Conv_2-input:1x1x1152-output:1x1x1536: {count: 498, mean: 0.7, std: 0.04}
Logits-input:1x1x1536-output:1000: {count: 499, mean: 0.6, std: 0.0}
"""
OFA_KEYS = [
    "first_conv hw=160 in=3 out=24 k=3 s=2 act=hswish",
    "mbconv hw=80 in=24 mid=24 out=24 k=3 s=1 se=0 act=relu skip=identity",
    "mbconv hw=80 in=24 mid=96 out=32 k=5 s=2 se=24 act=hswish skip=none",
    "mbpool hw=5 in=192 mid=1152 out=1536 act=hswish classes=1000",
]


def read(tmp_path, text, *, format, **kwargs):
    path = tmp_path / "file"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return read_foreign([path], format=format, **kwargs)


def rows_of(foreign):
    return {row.layer.key: row.p50 for row in foreign.rows}


def test_ofa_blocks_keep_their_shortcut_activation_and_squeeze(tmp_path):
    pytest.importorskip("yaml")

    foreign = read(tmp_path, OFA, format="ofa-yaml")

    # the head is one row of ours: 0.4 + 0.1 + 0.7 + 0.6 ms, spreads 0.03 and 0.04 independent
    assert rows_of(foreign) == dict(zip(OFA_KEYS, [0.5, 0.8, 1.5, pytest.approx(1.8)], strict=True))
    assert foreign.not_mapped == {}
    head = foreign.rows[3]
    assert (head.n, head.std, head.status) == (491, pytest.approx(0.05), "measured")
    assert [row.rel_sigma for row in foreign.rows[:3]] == pytest.approx([0.02, 0.1, 0.02])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("SkipConv-input:8x8x3-output:8x8x3: {mean: 1.0}", "no block of ours is like SkipConv"),
        ("expanded_conv-input:8x8x8-output:4x4x8-expand:8-kernel:3-stride:2-idskip:1: {mean: 1.0}",
         "an identity shortcut between different shapes"),
        ("expanded_conv-input:8x8x8-output:8x8x8-expand:8-kernel:3-stride:2-idskip:0: {mean: 1.0}",
         "a stride of 2 does not turn a map of 8 into 8"),
        ("expanded_conv-input:8x8x8-output:8x8x8-kernel:3-stride:1-idskip:0: {mean: 1.0}",
         "it lacks expand, kernel, stride or idskip"),
        ("expanded_conv-input:8x8x8-output:8x8x8-expand:8-kernel:3-stride:1-idskip:1: {mean: -1.0}",
         "the latency is -1.0; expected a positive number"),
        ("Conv-input:8x4x3-output:4x4x8: {mean: 1.0}", "its map is not square"),
        ("Logits-input:7x7x1280-output:1000: {mean: 1.0}", "a head other than convolution, mean"),
        ("whatever: 3", "not an entry with a shape and a mean"),
    ],
)  # fmt: skip
def test_what_is_no_block_of_ours_is_named_with_the_reason(tmp_path, line, reason):
    pytest.importorskip("yaml")

    foreign = read(tmp_path, "Conv-input:64x64x3-output:32x32x16: {mean: 1.0}\n" + line, format="proxyless-yaml")

    assert rows_of(foreign) == {"first_conv hw=64 in=3 out=16 k=3 s=2 act=relu": 1.0}
    ((name, told),) = foreign.not_mapped.items()
    assert name == line.rpartition(": " if "{" not in line else ": {")[0]
    assert reason in told


def test_several_heads_in_one_file_are_not_guessed_at(tmp_path):
    pytest.importorskip("yaml")

    foreign = read(tmp_path, OFA + "Conv_1-input:5x5x200-output:5x5x1200: {mean: 0.4}\n", format="ofa-yaml")

    assert list(rows_of(foreign)) == OFA_KEYS[:3]
    assert len(foreign.not_mapped) == 5


def test_yaml_is_read_safely(tmp_path):
    pytest.importorskip("yaml")

    with pytest.raises(FormatError, match="does not parse"):
        read(tmp_path, "a: !!python/object/apply:os.getcwd []", format="ofa-yaml")


def test_missing_yaml_is_an_error_with_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(MissingDependencyError, match=r"reading YAML tables needs yaml.*nas2edge\[tables\]"):
        read(tmp_path, OFA, format="ofa-yaml")


def test_blocks_of_several_files_get_the_mean_over_their_runs(tmp_path):
    pytest.importorskip("yaml")
    key = "Conv-input:64x64x3-output:32x32x16"
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, count, mean in zip(paths, (100, 300, 100), (1.0, 1.1, 2.0), strict=True):
        path.write_text(f"{key}: {{count: {count}, mean: {mean}, std: 0.01}}")

    (row,) = read_foreign(paths[:2], format="ofa-yaml").rows

    assert (row.p50, row.n, row.std) == (pytest.approx(1.075), 400, pytest.approx(0.01))
    assert row.rel_sigma == pytest.approx(0.05 / 1.075)
    with pytest.raises(FormatError, match=r"stands twice, with 1.0 and 2.0 ms; import these files into tables of"):
        read_foreign(paths, format="ofa-yaml")


def test_nn_meter_blocks_are_those_of_attentivenas(tmp_path):
    table = {
        "firstconv_128_3_16_2_3": 0.7,
        "conv_64_16_16_1_1_hard_swish_3_nose": 0.8,
        "conv_64_16_24_4_2_hard_swish_5_se": 1.2,
        "conv_32_24_32_4_1_gelu_5_se": 1.2,
        "mbpool_4_304_1984_6_hard_swish": 2.0,
        "nonsense": 1.0,
    }

    foreign = read(tmp_path, table, format="nn-meter")

    assert rows_of(foreign) == {
        "first_conv hw=128 in=3 out=16 k=3 s=2 act=hswish": 0.7,
        "mbconv hw=64 in=16 mid=16 out=16 k=3 s=1 se=0 act=hswish skip=identity": 0.8,
        "mbconv hw=64 in=16 mid=64 out=24 k=5 s=2 se=16 act=hswish skip=pool+conv": 1.2,
    }
    assert foreign.not_mapped == {
        "conv_32_24_32_4_1_gelu_5_se": "unknown activation 'gelu'",
        "mbpool_4_304_1984_6_hard_swish": "it does not say whether the classifier is part of it",
        "nonsense": "not a block of nn-Meter",
    }
    assert {row.n for row in foreign.rows} == {1}


def test_ncnn_lines_of_blocks_become_rows_and_networks_do_not(tmp_path):
    lines = f"""loop_count = 8
        {OFA_KEYS[1].replace(" ", ",")}  min =    0.90  max =    1.30  avg =    1.00
               mobilenet_v2  min =   61.90  max =   62.30  avg =   61.97
    """

    foreign = read(tmp_path, lines, format="ncnn")

    assert rows_of(foreign) == {OFA_KEYS[1]: 1.0}
    assert foreign.rows[0].min == 0.9
    assert foreign.not_mapped["mobilenet_v2"].startswith("a whole network, which says nothing of single blocks")


def test_csv_of_blocks(tmp_path):
    text = (
        "op,hw,in,mid,out,k,s,se,skip,act,classes,p50,n,std\n"
        "mbconv,80,24,24,24,3,1,0,identity,relu,,0.8,50,0.01\n"
        "mbpool,5,192,1152,1536,,,,,hswish,1000,1.8,,\n"
        "mbconv,80,24,24,24,3,x,0,identity,relu,,0.8,50,0.01\n"
    )

    foreign = read(tmp_path, text, format="csv")

    assert rows_of(foreign) == {OFA_KEYS[1]: 0.8, OFA_KEYS[3]: 1.8}
    assert [row.n for row in foreign.rows] == [50, 1]
    assert list(foreign.not_mapped) == ["line 4 (mbconv)"]


def test_csv_by_key(tmp_path):
    foreign = read(tmp_path, f"block,median_ms\n{OFA_KEYS[0]},0.5\n", format="csv")

    assert rows_of(foreign) == {OFA_KEYS[0]: 0.5}


def test_lists_of_whole_networks_are_refused(tmp_path):
    with pytest.raises(FormatError, match="is the latency of a block: a whole network"):
        read(tmp_path, "device,model,latency_ms\nRaspberry Pi 4B,ResNet18,254.6\n", format="csv")
    with pytest.raises(FormatError, match="has no column of latencies"):
        read(tmp_path, "a,b\n1,2\n", format="csv")


@pytest.mark.parametrize("key", OFA_KEYS)
def test_keys_read_back(key):
    assert layer_from_key(key).key == layer_from_key(key.replace(" ", ",")).key == key


@pytest.mark.parametrize("key", ["mobilenet_v2", "mbconv hw=8", OFA_KEYS[1] + " extra=1", OFA_KEYS[1] + " p50=1"])
def test_other_texts_are_no_keys(key):
    with pytest.raises(TableError):
        layer_from_key(key)


TINY = load_space("tiny")
LAYERS = plan(TINY, TINY.smallest())


def profile():
    layers = [{"count": 100}]
    for number, layer in enumerate(LAYERS, start=1):
        for op in layer.ops:
            layers.append({"name": f"{layer.name}.{op.name} + PWN(x)", "averageMs": 9.0, "medianMs": 0.01 * number})
    return [*layers, {"name": "Reformatting CopyNode for Input Tensor 0", "averageMs": 0.001}]


def test_profiles_of_trtexec_are_summed_by_block(tmp_path):
    foreign = read(tmp_path, profile(), format="trtexec-profile", layers=LAYERS)

    first = LAYERS[1]
    assert rows_of(foreign)[LAYERS[0].key] == pytest.approx(0.01)
    assert rows_of(foreign)[first.key] == pytest.approx(0.02 * len(first.ops))
    assert list(foreign.not_mapped) == ["Reformatting CopyNode for Input Tensor 0"]


def test_profiles_of_another_network_are_refused(tmp_path):
    foreign = [{"count": 1}, {"name": "conv1", "averageMs": 1.0}]

    with pytest.raises(FormatError, match="100% of the time is in layers that name no block"):
        read(tmp_path, foreign, format="trtexec-profile", layers=LAYERS)
    with pytest.raises(FormatError, match="does not say which network it is of; give that with --subnet"):
        read(tmp_path, foreign, format="trtexec-profile")


def test_profiles_of_tflite_are_read_to_the_end_of_the_first_table(tmp_path):
    lines = ["============================== Run Order ==============================",
             "node type,  first, avg_ms, %, cdf%, mem KB, times called, name"]  # fmt: skip
    lines += [f"CONV_2D, 0.1, 0.2, 1%, 1%, 0.0, 1, [{layer.name}/conv;{layer.name}/bias]" for layer in LAYERS]
    lines += ["", "============================== Top by Computation Time ==", lines[1], *lines[2:4]]

    foreign = read(tmp_path, "\n".join(lines), format="tflite-csv", layers=LAYERS)

    assert set(rows_of(foreign).values()) == {0.2}


def test_unknown_formats_bring_the_nearest(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'ofa-yaml'"):
        read_foreign([tmp_path / "x"], format="ofa-yml")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lut.csv").write_text(f"block,ms\n{OFA_KEYS[0]},0.5\n{OFA_KEYS[1]},0.9\nother,3\n")
    (tmp_path / "profile.json").write_text(json.dumps(profile()))
    subnet = {"format": "nas2edge.subnet", "version": 1, "space": "tiny", "subnet": TINY.smallest().to_dict()}
    (tmp_path / "subnet.json").write_text(json.dumps(subnet))
    return tmp_path


DEVICE = ["--device", "phone", "--chip", "a chip", "--runtime", "TFLite", "--precision", "fp32", "--source", "a test",
          "--licence", "MIT"]  # fmt: skip


def run(*args):
    return CliRunner().invoke(main, ["tables", "import", *args])


def test_command_writes_a_derived_table(folder):
    result = run("lut.csv", "--format", "csv", *DEVICE, "--json")

    shown = json.loads(result.stdout)
    table = read_table(folder / "latency_tables" / "phone.json")
    assert result.exit_code == 0
    assert (table.kind, len(table.rows), table.licence, table.rel_sigma) == ("derived", 2, "MIT", 0.1)
    assert table.device.clocks == "unknown: not stated in the source"
    assert list(shown["not_mapped"]) == ["line 4 (other)"]
    assert "not mapped: line 4 (other): op is 'other'" in result.stderr
    assert "warning N2E-L013: not stated: device.clocks" in result.stderr


def test_command_calibrates_profiles_by_the_whole_network(folder):
    result = run("profile.json", "--format", "trtexec-profile", *DEVICE, "--subnet", "subnet.json",
                 "--network-latency", "0.5ms", "--out", "phone.json")  # fmt: skip

    table = read_table(folder / "phone.json")
    assert result.exit_code == 0, result.output
    assert table.estimate(LAYERS).ms == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["lut.csv", "--format", "csv", "--out", "other.json"], "a table's file is called as its device, phone.json"),
        (["nowhere.csv", "--format", "csv"], "cannot read nowhere.csv"),
        (["lut.csv", "--format", "csv", "--network-latency", "1ms"], "--network-latency is that of the network of"),
    ],
)
def test_command_refuses(folder, args, message):
    result = run(*args, *DEVICE)

    assert result.exit_code == 2
    assert message in result.stderr
