"""Engines by trtexec, here and over ssh: real processes and files; trtexec, ssh and scp are stand-ins on the PATH."""

import importlib
import json
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from nas2edge.errors import EngineNotBuiltError, FormatError, InputError, RuntimeFailedError
from nas2edge.export.registry import load_exporter
from nas2edge.graph import network_model, random_weights
from nas2edge.plan import plan
from nas2edge.runtimes import open_session, run_all
from nas2edge.space import SearchSpace

STANDIN = Path(__file__).parent / "trtexec_standin.py"
FIXED, RANGE = (1, 1, 1), (1, 2, 4)

tool = importlib.import_module("nas2edge.exporters._tensorrt_tool")

SSH = """#!/bin/sh
# As ssh does: options, then the host, then one command for the shell of the device, in its own home.
echo "ssh $*" >> "$SSH_LOG"
while [ "$1" != "--" ]; do shift; done
shift; host="$1"; shift
if [ -n "$SSH_FAILS" ]; then echo "$SSH_FAILS" >&2; exit 255; fi
cd "$DEVICE" && HOME="$DEVICE" XDG_CACHE_HOME= PATH="$DEVICE/bin:/usr/bin:/bin" exec sh -c "$*"
"""
SCP = """#!/bin/sh
echo "scp $*" >> "$SSH_LOG"
while [ "$1" != "--" ]; do shift; done
exec cp "${2#*@*:}" "${3#*@*:}"
"""


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def put_trtexec(folder: Path) -> None:
    write_program(
        folder / "trtexec", f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(STANDIN))} "$@"\n'
    )


@pytest.fixture
def model(tmp_path: Path, tiny_space: SearchSpace) -> Path:
    return write_model(tmp_path / "bundle", tiny_space, 1)


def write_model(folder: Path, space: SearchSpace, batch: int | None, opset: int = 17) -> Path:
    layers = plan(space, space.largest())
    folder.mkdir(exist_ok=True)
    model = network_model(layers, random_weights(layers, np.random.default_rng(0)), batch=batch, opset=opset)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """trtexec in the PATH of this machine."""
    put_trtexec(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device that ssh reaches: its home."""
    home = tmp_path / "device"
    put_trtexec(home / "bin")
    write_program(tmp_path / "ssh" / "ssh", SSH)
    write_program(tmp_path / "ssh" / "scp", SCP)
    monkeypatch.setenv("PATH", f"{tmp_path / 'ssh'}:/usr/bin:/bin")
    monkeypatch.setenv("DEVICE", str(home))
    monkeypatch.setenv("SSH_LOG", str(tmp_path / "ssh.log"))
    return home


def arguments(path: Path, batch: tuple[int, int, int] = FIXED) -> list[str]:
    found = tool.find_trtexec(importlib.import_module("nas2edge.exporters._tensorrt_hosts").LocalHost())
    return tool.build_arguments(
        found, onnx.load(path), batch=batch, onnx_file="a.onnx", engine="a.engine", timing_cache="t"
    )


@pytest.mark.parametrize(("builder", "where"), [("trtexec", "local"), ("ssh://me@orin:2222", "device")])
def test_an_engine_is_built_run_and_described(builder, where, request, model, tiny_space):
    request.getfixturevalue(where)
    exporter, said = load_exporter("trt", {"builder": builder}), []
    exporter.on_progress = said.append
    given = np.random.default_rng(1).standard_normal((3, 3, 24, 24)).astype(np.float32)

    artefact = exporter.build(model, batch=FIXED)

    described = json.loads(artefact.files[1].read_text())["engine"]
    assert artefact.files[0].read_bytes().endswith(model.read_bytes())
    assert (described["gpu"], described["compute_capabilities"]) == ("Orin", ["8.7"])
    assert (described["runtime"], described["precision"]) == ("TensorRT 8.5.2", "float32")
    assert described["builder"] == builder.split(":")[0]
    assert described["platform"] == " ".join(os.uname()[i] for i in (0, 4))
    assert described["command"] == "trtexec --onnx=model.onnx --saveEngine=model.engine --buildOnly --noTF32"
    assert described["timing_cache"] == "tensorrt-8.5.2.timing"
    assert "sha256" not in "".join(described.keys() - {"onnx_sha256"})
    assert "Engine built in 12.3456 sec." in said
    with open_session(model, runtime="onnxruntime") as session:
        np.testing.assert_allclose(exporter.run(artefact, given), run_all(session, given), atol=1e-6)
    assert {path.name for path in model.parent.iterdir()} == {"model.onnx", "model.engine", "model.engine.json"}


def test_over_ssh_only_keys_are_used_and_nothing_is_left(device, model, tmp_path):
    load_exporter("trt", {"builder": "ssh://me@orin:2222"}).build(model, batch=FIXED)

    lines = (tmp_path / "ssh.log").read_text().splitlines()
    assert all("BatchMode=yes" in line for line in lines if line.startswith(("ssh ", "scp ")))
    assert all(" -p 2222 " in line for line in lines if line.startswith("ssh -o"))
    assert all(" -P 2222 " in line for line in lines if line.startswith("scp"))
    (made,) = {word.rsplit("/", 1)[0].split(":")[1] for line in lines for word in line.split() if word.endswith(".onnx")
               and word.startswith("me@orin:")}  # fmt: skip
    assert made.startswith("/tmp/nas2edge.")
    assert not Path(made).exists()
    assert [path.name for path in (device / ".cache" / "nas2edge").iterdir()] == ["tensorrt-8.5.2.timing"]


def test_a_range_of_batch_sizes_is_built_and_run(local, tmp_path, tiny_space):
    model = write_model(tmp_path / "bundle", tiny_space, None)
    exporter = load_exporter("trt", {"builder": "trtexec"})
    given = np.random.default_rng(1).standard_normal((3, 3, 24, 24)).astype(np.float32)

    artefact = exporter.build(model, batch=RANGE)

    assert (
        "--minShapes=images:1x3x24x24 --optShapes=images:2x3x24x24 --maxShapes=images:4x3x24x24"
        in (artefact.notes["command"])
    )
    assert exporter.run(artefact, given).shape == (3, 3)


@pytest.mark.parametrize(
    ("version", "has", "lacks"),
    [
        ("8201", {"--buildOnly"}, {"--skipInference", "--stronglyTyped"}),
        ("8602", {"--skipInference"}, {"--buildOnly", "--stronglyTyped"}),
        ("100300", {"--skipInference", "--stronglyTyped"}, {"--buildOnly"}),
        ("110201", {"--skipInference", "--stronglyTyped"}, {"--buildOnly"}),
    ],
)
def test_each_version_is_asked_in_its_own_words(version, has, lacks, local, tmp_path, tiny_space, monkeypatch):
    monkeypatch.setenv("TRTEXEC_VERSION", version)
    model = write_model(tmp_path / "bundle", tiny_space, 1, opset=13)
    load_exporter("trt", {"builder": "trtexec"}).build(model, batch=FIXED)

    said = set(arguments(model))
    assert has <= said
    assert not lacks & said
    assert {"--onnx=a.onnx", "--saveEngine=a.engine", "--timingCacheFile=t", "--noTF32"} <= said


@pytest.mark.parametrize(
    ("version", "expected"), [("8602", {"--fp16"}), ("100300", {"--stronglyTyped"}), ("110201", {"--stronglyTyped"})]
)
def test_half_precision_is_allowed_where_types_are_weak(version, expected, local, model, monkeypatch):
    monkeypatch.setenv("TRTEXEC_VERSION", version)
    graph = onnx.load(model)
    graph.graph.initializer[0].data_type = onnx.TensorProto.FLOAT16
    onnx.save(graph, model)

    assert set(arguments(model)) & {"--fp16", "--int8", "--stronglyTyped"} == expected


@pytest.mark.parametrize(
    ("number", "version"), [("8201", (8, 2, 1)), ("8502", (8, 5, 2)), ("100300", (10, 3, 0)), ("110201", (11, 2, 1))]
)
def test_versions_in_banners_are_read(number, version):
    assert tool.read_version(number) == version


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        (
            "parse",
            r"trtexec of TensorRT 8\.5\.2 on this machine built no engine: .*parseGraph: .6. Invalid Node - Pad_13$",
        ),
        ("memory", "it was killed, most likely for want of memory"),
    ],
)
def test_what_trtexec_complains_of_is_told(fails, message, local, model, monkeypatch):
    monkeypatch.setenv("TRTEXEC_FAILS", fails)

    with pytest.raises(EngineNotBuiltError, match=message):
        load_exporter("trt", {"builder": "trtexec"}).build(model, batch=FIXED)
    assert [path.name for path in model.parent.iterdir()] == ["model.onnx"]


def test_an_engine_of_another_machine_is_refused_when_it_is_run(local, model):
    exporter = load_exporter("trt", {"builder": "trtexec"})
    artefact = exporter.build(model, batch=FIXED)
    artefact.files[0].write_bytes(b"something else")

    with pytest.raises(RuntimeFailedError, match="does not run the engine: Error.1.: .*Serialization"):
        exporter.run(artefact, np.zeros((1, 3, 24, 24), np.float32))


@pytest.mark.parametrize("builder", ["trtexec", "ssh://me@orin"])
def test_a_timing_cache_of_ones_own_is_read_and_extended(builder, local, device, model, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path / 'ssh'}:{tmp_path / 'bin'}:/usr/bin:/bin")
    (tmp_path / "mine.timing").write_bytes(b"kept ")

    load_exporter("trt", {"builder": builder, "timing_cache": str(tmp_path / "mine.timing")}).build(model, batch=FIXED)

    assert (tmp_path / "mine.timing").read_bytes() == b"kept timings"
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def heeds_ctrl_c():
    """A shell starts what runs in its background deaf to Ctrl-C, the tests included."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_trtexec(local, model, monkeypatch, heeds_ctrl_c):
    monkeypatch.setenv("TRTEXEC_FAILS", "slow")
    exporter = load_exporter("trt", {"builder": "trtexec"})
    started = threading.Event()
    exporter.on_progress = lambda said: started.set() if "Computing costs" in said else None

    def interrupt() -> None:
        started.wait(30)
        time.sleep(0.2)  # a signal in the instant before a read begins would wait for the read's end
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        exporter.build(model, batch=FIXED)
    assert time.monotonic() - before < 30
    assert [path.name for path in model.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("Host key verification failed.", "connect once by hand, so that its key is known: ssh me@orin"),
        ("me@orin: Permission denied (publickey).", "only keys are used: ssh-copy-id me@orin"),
        ("ssh: connect to host orin port 22: Connection refused", "cannot reach me@orin: ssh: connect to host orin"),
    ],
)
def test_a_device_that_is_not_reached_says_why(said, hint, device, model, monkeypatch):
    monkeypatch.setenv("SSH_FAILS", said)

    with pytest.raises(EngineNotBuiltError, match=hint):
        load_exporter("trt", {"builder": "ssh://me@orin"}).build(model, batch=FIXED)


def test_a_machine_without_trtexec_says_how_to_get_it(device, model):
    (device / "bin" / "trtexec").unlink()

    with pytest.raises(EngineNotBuiltError, match=r"me@orin has no trtexec.*libnvinfer-bin"):
        load_exporter("trt", {"builder": "ssh://me@orin"}).build(model, batch=FIXED)


def test_a_program_of_that_name_that_is_another_is_told(tmp_path, model, monkeypatch):
    write_program(tmp_path / "bin" / "trtexec", "#!/bin/sh\necho hello\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    with pytest.raises(EngineNotBuiltError, match="is no trtexec, or does not run: hello"):
        load_exporter("trt", {"builder": "trtexec"}).build(model, batch=FIXED)


@pytest.mark.parametrize(
    "address",
    [
        "ssh://",
        "ssh://me:secret@orin",
        "ssh://me@orin/path",
        "ssh://me@-oProxyCommand=x",
        "ssh://-l@orin",
        "ssh://a@b:x",
    ],
)
def test_addresses_that_are_none_are_refused_without_showing_a_password(address):
    with pytest.raises(InputError, match="expected ssh://USER@HOST") as raised:
        load_exporter("trt", {"builder": address})
    assert "secret" not in str(raised.value)


def test_an_unknown_builder_and_a_timing_cache_without_a_folder(tmp_path):
    with pytest.raises(
        InputError, match="unknown builder 'docker'; expected one of python, trtexec, rtx, ssh://USER@HOST"
    ):
        load_exporter("trt", {"builder": "docker"})
    with pytest.raises(InputError, match="there is no folder .*missing for the timing cache"):
        load_exporter("trt", {"timing_cache": str(tmp_path / "missing" / "a.timing")})


@pytest.mark.parametrize("text", ["", "{}", "[]", '[{"name": "a"}]', '[{"dimensions": "1x2", "values": [1]}]'])
def test_outputs_that_do_not_read_are_an_error(text):
    with pytest.raises(FormatError, match="expected one output with its values"):
        tool.read_outputs(text)
