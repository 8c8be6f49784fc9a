"""A stand-in for trtexec, run as a program: it prints in the formats of the real one, and refuses what that refuses.

Its engines hold the ONNX file, so that what it "runs" is computed by ONNX Runtime. Lines follow logs of TensorRT 8.2,
8.5, 8.6 and 10.3 on Jetsons and PCs. TRTEXEC_VERSION sets the version, TRTEXEC_FAILS a failure.
"""

import json
import os
import sys
import time

import numpy as np

VERSION = os.environ.get("TRTEXEC_VERSION", "8502")
MAJOR = int(VERSION) // (10_000 if int(VERSION) >= 100_000 else 1_000)
COMMON = {"onnx", "saveEngine", "loadEngine", "minShapes", "optShapes", "maxShapes", "shapes", "timingCacheFile",
          "noTF32", "loadInputs", "exportOutput", "iterations", "warmUp", "duration", "verbose", "help"}  # fmt: skip
BEFORE_11 = {"fp16", "int8", "best", "calib"}
ENGINE = b"stand-in engine\n"


def known() -> set[str]:
    options = COMMON | (BEFORE_11 if MAJOR < 11 else set())
    options |= {"buildOnly"} if int(VERSION) < 8600 else {"skipInference"}
    return options | ({"stronglyTyped"} if MAJOR >= 10 else set())


def put(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def say(level: str, text: str) -> None:
    put(f"[11/24/2026-10:00:00] [{level}] {text}")


def end(verdict: str, code: int) -> None:
    put(f"&&&& {verdict} TensorRT.trtexec [TensorRT v{VERSION}] # {' '.join(sys.argv)}")
    sys.exit(code)


def dotted() -> str:
    base = 10_000 if int(VERSION) >= 100_000 else 1_000
    return f"{MAJOR}.{int(VERSION) % base // 100}.{int(VERSION) % 100}"


def introduce() -> None:
    say("I", "=== Device Information ===")
    say("I", "Selected Device: Orin")
    say("I", "Compute Capability: 8.7")
    say("I", "SMs: 8")
    say("I", f"TensorRT version: {dotted()}")


def build(options: dict[str, str]) -> None:
    introduce()
    say("I", "Start parsing network model.")
    fails = os.environ.get("TRTEXEC_FAILS", "")
    if fails == "parse":
        say("E", "[TRT] ModelImporter.cpp:776: --- End node ---")
        say("E", "[TRT] ModelImporter.cpp:779: ERROR: ModelImporter.cpp:180 In function parseGraph:")
        put("[6] Invalid Node - Pad_13")
        say("E", "Failed to parse onnx file")
        say("I", "Finish parsing network model")
        for text in ("Parsing model failed", "Failed to create engine from model or file.", "Engine set up failed"):
            say("E", text)
        end("FAILED", 1)
    if fails == "memory":
        say("I", "Finish parsing network model")
        put("Killed")
        os.kill(os.getpid(), 9)
    if fails == "slow":
        say("V", "[TRT] =============== Computing costs for")
        time.sleep(60)
    cache = options.get("timingCacheFile")
    if cache:
        say("I", f"Could not read timing cache from: {cache}. A new timing cache will be generated and written.")
        with open(cache, "ab") as file:
            file.write(b"timings")
    say("W", "[TRT] Check verbose logs for the list of affected weights.")
    with open(options["onnx"], "rb") as source, open(options["saveEngine"], "wb") as target:
        target.write(ENGINE + source.read())
    say("I", "Engine built in 12.3456 sec.")
    say("I", "Skipped inference phase since --skipInference or --buildOnly is added.")


def run(options: dict[str, str]) -> None:
    import onnxruntime as ort

    introduce()
    with open(options["loadEngine"], "rb") as file:
        content = file.read()
    if not content.startswith(ENGINE):
        say("E", "Error[1]: [runtime.cpp::parsePlan::455] Error Code 1: Serialization (Serialization assertion "
                 "plan->header.magicTag == rt::kPLAN_MAGIC_TAG failed.)")  # fmt: skip
        for text in ("Engine deserialization failed", "Got invalid engine!", "Inference set up failed"):
            say("E", text)
        end("FAILED", 1)
    session = ort.InferenceSession(content[len(ENGINE) :], providers=["CPUExecutionProvider"])
    name, path = options["loadInputs"].split(":", 1)
    shape = session.get_inputs()[0].shape
    if "shapes" in options:
        shape = [int(n) for n in options["shapes"].split(":", 1)[1].split("x")]
    (found,) = session.run(None, {name: np.fromfile(path, np.float32).reshape(shape)})
    result = {"name": "logits", "dimensions": "x".join(map(str, found.shape)), "values": found.ravel().tolist()}
    with open(options["exportOutput"], "w", encoding="utf-8") as file:
        json.dump([result], file)


def main() -> None:
    put(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{VERSION}] # {' '.join(sys.argv)}")
    options = dict(word.removeprefix("--").partition("=")[::2] for word in sys.argv[1:])
    if "help" in options:
        put("=== Model Options ===\n" + "\n".join(f"  --{name:20s} Text (default = none)" for name in sorted(known())))
        sys.exit(0)
    unknown = sorted(options.keys() - known())
    if unknown:
        say("E", f"Unknown option: --{unknown[0]} {options[unknown[0]]}")
        end("FAILED", 1)
    (run if "loadEngine" in options else build)(options)
    end("PASSED", 0)


if __name__ == "__main__":
    main()
