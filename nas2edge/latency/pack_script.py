"""The shell script of a pack: POSIX sh, so that it runs on boards and phones (adb shell) alike."""

from __future__ import annotations

from nas2edge.latency.tools import Tool

_SCRIPT = """\
#!/bin/sh
# Measures the models of this folder by @TOOL@; written by nas2edge. Run it again to go on after an interruption.
# Before: pin the clocks (governor "performance"; on a Jetson nvpmodel and jetson_clocks), close other programs.
set -u
cd "$(dirname "$0")" || exit 1
PATH="$PATH:.:/usr/src/tensorrt/bin:/data/local/tmp"
export PATH
THREADS="${THREADS:-@THREADS@}"
SECONDS_PER_RUN="${SECONDS_PER_RUN:-@SECONDS@}"
LOOPS="${LOOPS:-64}"
if ! command -v @TOOL@ >/dev/null 2>&1; then
  echo "there is no @TOOL@ in PATH; put it there or beside run.sh" >&2
  exit 2
fi
mkdir -p results

say() { echo "$1: $(eval "$2" 2>/dev/null | tr '\\n' ' ')"; }
system() {
  say time 'date -u +%Y-%m-%dT%H:%M:%SZ'
  say machine 'uname -m'
  say kernel 'uname -sr'
  say os 'sed -n "s/^PRETTY_NAME=//p" /etc/os-release | tr -d "\\""; getprop ro.build.fingerprint'
  say board 'tr -d "\\0" < /sys/firmware/devicetree/base/model || cat /sys/class/dmi/id/product_name'
  say phone 'getprop ro.product.model'
  say chip 'sed -n "s/^model name[^:]*: //p" /proc/cpuinfo | head -n 1; getprop ro.soc.model'
  say features 'grep -m 1 -E "^(Features|flags)" /proc/cpuinfo'
  say governor 'cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor'
  say khz 'cat /sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq'
  say gpu_hz 'cat /sys/class/devfreq/*gpu*/cur_freq /sys/class/devfreq/*/gpu/cur_freq'
  say temperatures 'cat /sys/class/thermal/thermal_zone*/temp'
  say power_mode 'nvpmodel -q'
  say jetpack 'head -n 1 /etc/nv_tegra_release'
  say memory_kb 'sed -n "s/^MemTotal: *//p" /proc/meminfo'
  say version '@VERSION@'
}
[ -s results/system-start.txt ] || system > results/system-start.txt

# Board power in milliwatts, where a sensor tells (INA3221 and the like); the first rail is the board's input.
power() {
  for h in /sys/class/hwmon/hwmon*; do
    if [ -r "$h/power1_input" ]; then echo $(( $(cat "$h/power1_input") / 1000 )); return; fi
    if [ -r "$h/in1_input" ] && [ -r "$h/curr1_input" ]; then
      echo $(( $(cat "$h/in1_input") * $(cat "$h/curr1_input") / 1000 )); return
    fi
  done
}
watch_power() { while :; do power; sleep 0.05; done; }

total=$(wc -l < order.txt)
failed=0
while read -r visit name SHAPE; do
  out="results/$visit.txt"
  [ -s "$out" ] && continue
  MODEL="models/$name@SUFFIX@"
  FOLDER="results/$visit.d"
  mkdir -p "$FOLDER"
  if [ -n "$(power)" ]; then watch_power > "$FOLDER/power" 2>/dev/null & watcher=$!; else watcher=; fi
  @CALL@ < /dev/null > "$FOLDER/log" 2>&1
  code=$?
  [ -n "$watcher" ] && kill "$watcher" 2>/dev/null && wait "$watcher" 2>/dev/null
  {
    echo "exit code: $code"
    if [ -s "$FOLDER/power" ]; then echo "power_mw: $(tr '\\n' ' ' < "$FOLDER/power")"; fi
    echo "output:"
    if [ -s "$FOLDER/benchmark_report.json" ]; then cat "$FOLDER/benchmark_report.json"; else cat "$FOLDER/log"; fi
  } > "$out.part" && mv "$out.part" "$out"
  rm -rf "$FOLDER"
  if [ "$code" -ne 0 ]; then failed=$((failed + 1)); fi
  case "$visit" in *00-s?-*|*50-s?-*) echo "${visit%%-*} of $total visits, $failed failed" >&2 ;; esac
done < order.txt
system > results/system-end.txt
cp manifest.json results/
tar -czf results.tar.gz.part results && mv results.tar.gz.part results.tar.gz
echo "results.tar.gz is written; read it with: nas2edge profile --ingest results.tar.gz" >&2
"""


def script(tool: Tool, *, precision: str, threads: int | None, seconds: float) -> str:
    """Returns the script.

    Args:
        tool: What it calls.
        precision: Of the arithmetic.
        threads: CPU threads; None means one.
        seconds: Timed runs of a model and session, where the tool can be told.
    """
    values = {
        "@CALL@": tool.options[precision],
        "@TOOL@": tool.name,
        "@SUFFIX@": tool.suffix,
        "@THREADS@": str(threads or 1),
        "@SECONDS@": str(whole_seconds(seconds)),
        "@VERSION@": tool.version,
    }
    text = _SCRIPT
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def whole_seconds(seconds: float) -> int:
    """Returns how long the script has each model run: all these tools take whole seconds."""
    return max(1, round(seconds))
