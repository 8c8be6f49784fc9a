#!/bin/sh
# Searches the embedded supernet for a Jetson by its predictor, which takes a second and no torch, exports the find to
# ONNX and to an engine, and says what was made.
# Usage: sh scripts/demo.sh BIN, where BIN holds the installed nas2edge.
set -eu
nas2edge="$1/nas2edge"

run() {
    printf '\n$ nas2edge %s\n' "$*"
    "$nas2edge" "$@"
}

run search --device jetson --latency 20ms --report report.html
run export subnet.json --to onnx
engine="and an engine that was built from it"
status=0
run export subnet.json --to trt || status=$?
case $status in
0) ;;
3) engine="but no engine: none could be built on this machine, see above for how to get one" ;;
*) exit $status ;;
esac

cat <<END

Done. What this made, in $(pwd):
  subnet.json          the sub-network that was chosen, and what was predicted of it
  pareto.json          the whole front that it was chosen from
  report.html          the same as a page to look at: open it in a browser
  bundles/*-onnx       model.onnx, and report.md with the proof that it is the network that was searched
  bundles/*-trt        the same, $engine
END
