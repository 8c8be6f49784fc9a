// Selecting, drawing again, and the first drawing.

function select(i, focus) {
  selected = i;
  markSelected();
  if (focus) front.circles[i].focus({ preventScroll: true });
  markStrip();
  drawSelected();
  drawNext();
  drawBlocks();
  markRow();
  try {
    history.replaceState(null, "", `#point=${points[i].id}`);
  } catch {
    /* some browsers refuse for files */
  }
}
function drawSwitch() {
  byId("axes").replaceChildren(
    ...(axes.length < 2
      ? []
      : axes.map((axis, k) =>
          el(
            "button",
            {
              type: "button",
              "aria-pressed": k === axisIndex,
              onclick: () => {
                axisIndex = k;
                drawSwitch();
                drawFront();
                drawGenes();
                byId("axes").children[k].focus();
              },
            },
            axis.device && axis.metric === "latency_ms" ? axis.device : axis.title,
          ),
        )),
  );
}
function fromFragment() {
  const match = /^#point=(.+)$/.exec(location.hash);
  if (!match) return -1;
  const named = points.findIndex((point) => point.id === match[1]);
  return named >= 0 ? named : /^\d+$/.test(match[1]) && Number(match[1]) < points.length ? Number(match[1]) : -1;
}
function draw() {
  drawFront();
  drawGenes();
  drawConvergence();
  drawBlocks();
}

selected = fromFragment() >= 0 ? fromFragment() : data.best;
drawSwitch();
draw();
drawSelected();
drawNext();
drawFacts();
listenToFront();
listenToGenes();
byId("all").addEventListener("toggle", () => {
  if (byId("all").open && !byId("table").childNodes.length) drawTable();
});
addEventListener("hashchange", () => {
  if (fromFragment() >= 0) select(fromFragment());
});
addEventListener("beforeprint", () => {
  forcedWidth = PRINT_WIDTH;
  draw();
});
addEventListener("afterprint", () => {
  forcedWidth = 0;
  draw();
});
let lastWidth = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== lastWidth) {
    lastWidth = innerWidth;
    draw();
  }
});
