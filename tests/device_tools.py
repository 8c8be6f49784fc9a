"""Stand-ins for the benchmark tools of devices: programs that print what the real ones print, for any model.

A model takes a time that follows from its bytes' number, so that results can be checked; formats are those of trtexec
(TensorRT 10), benchmark_model (TensorFlow Lite), benchncnn and OpenVINO's benchmark_app.
"""

import stat
from pathlib import Path

_PROLOGUE = """#!/bin/sh
# the last argument that names a model
for argument in "$@"; do
  case "$argument" in
    models/*) model="$argument" ;;
    *=models/*) model="${argument#*=}" ;;
  esac
done
if [ ! -f "$model" ]; then echo "cannot open $model" >&2; exit 1; fi
case "$model" in *${BROKEN:-none}*) echo "[E] engine failed"; exit 1 ;; esac
echo "$model" >> "${CALLS:-/dev/null}"
us=$(( 200 + $(wc -c < "$model") % 100000 / 100 ))
"""
_MS = 'ms=$(printf "%d.%03d" $((us / 1000)) $((us % 1000)))\n'

TOOLS = {
    "trtexec": _PROLOGUE
    + _MS
    + """
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v100100] # trtexec $*"
echo "[11/24/2026-12:00:00] [I] Timing trace has 1873 queries over 0.50 s"
echo "[11/24/2026-12:00:00] [I] === Performance summary ==="
say() { printf '[11/24/2026-12:00:00] [I] %s: min = %s ms, max = %s ms, mean = %s ms, median = %s ms, ' "$@"; }
say Latency 9.1 9.4 9.2 9.2; echo "percentile(90%) = 9.3 ms, percentile(95%) = 9.3 ms, percentile(99%) = 9.4 ms"
say "Enqueue Time" 0.002 0.02 0.003 0.003; echo "percentile(90%) = 0.003 ms, percentile(99%) = 0.01 ms"
say "GPU Compute Time" "${ms}1" "${ms}9" "${ms}6" "${ms}5"
echo "percentile(90%) = ${ms}7 ms, percentile(95%) = ${ms}8 ms, percentile(99%) = ${ms}8 ms"
echo "&&&& PASSED TensorRT.trtexec [TensorRT v100100]"
""",
    "benchmark_model": _PROLOGUE
    + """
echo "INFO: STARTING!"
echo "INFO: Log parameter values verbosely: [0]"
echo "INFO: Running benchmark for at least 1 iterations and at least 0.2 seconds"
echo "INFO: count=9 first=9999 curr=9000 min=8000 max=9999 avg=8888.5 std=300"
echo "INFO: Running benchmark for at least 50 iterations and at least 1 seconds"
echo "INFO: count=812 first=$us curr=$us min=$us max=$((us + 90)) avg=$((us + 5)).25 std=3"
echo "INFO: Inference timings in us: Init: 5685, First inference: $us, Warmup (avg): 8888.5, Inference (avg): $us"
""",
    "benchncnn": _PROLOGUE
    + """
echo "loop_count = $1"
echo "num_threads = $2"
echo "powersave = $3"
echo "gpu_device = $4"
echo "cooling_down = $5"
centi=$(( us / 10 ))
ms=$(printf "%d.%02d" $((centi / 100)) $((centi % 100)))
printf "%20s  min = %7s  max = %7s  avg = %7s\\n" "${model##*/}" "$ms" "$ms" "$ms" >&2
""",
}


def install(folder: Path, *names: str) -> None:
    """Writes the programs into a folder that is to be in PATH."""
    for name in names:
        path = folder / name
        path.write_text(TOOLS[name])
        path.chmod(path.stat().st_mode | stat.S_IEXEC)


SSH = """#!/bin/sh
# A stand-in for ssh that takes the options of nas2edge and runs the command in another home.
echo "$*" >> "$SSH_CALLS"
while [ "$1" != "--" ]; do shift; done
host="$2"; command="$3"
if [ "$host" != "me@board" ]; then
  echo "$host: Permission denied (publickey,password)." >&2
  exit 255
fi
cd "$SSH_HOME" && exec sh -c "$command"
"""
