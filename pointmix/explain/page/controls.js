// The controls, the keyboard, and the start.
const canvas = byId("picture");
const VIEW_NAMES = { clusters: "Clusters of a block", reduced: "Clusters of all blocks (k-means)", maps: "Maps", input: "Input" };
const NARROWEST = 104; // of a picture, where the page can be scrolled
let panels = []; // that the state asks for
let drawn = []; // that are seen
let hovered = null; // {panel, point}
let moving = null; // timer: while a cloud is moved it is drawn coarser
let waiting = false;

const pointInFocus = () => state.point ?? hovered?.point ?? null;

function apply(values = {}) {
  change(values);
  const at = panels.indexOf(hovered?.panel);
  panels = panelsShown();
  if (hovered) hovered = panels[at] ? { ...hovered, panel: panels[at] } : null;
  showControls();
  showGuess();
  writeHash();
  redraw();
}

function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const context = canvas.getContext("2d");
    const { clientWidth: width, clientHeight } = byId("frame");
    const narrow = matchMedia("(max-width: 720px)").matches; // as in page.css: controls below the picture
    const used = layOut(context, width, narrow ? 0.56 * innerHeight : clientHeight, panels, narrow ? NARROWEST : 0);
    byId("frame").style.height = narrow ? `${used}px` : "";
    const height = narrow ? used : clientHeight;
    const ratio = Math.min(2, devicePixelRatio);
    Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    context.scale(ratio, ratio);
    drawn = panels;
    draw(context, width, height, panels, pointInFocus(), moving === null ? 2 : 1);
    const focused = hovered?.panel ?? panels.find((panel) => panel.block || panel.reduced) ?? panels[0];
    showPoint(focused, pointInFocus());
    canvas.setAttribute("aria-label", panels.map((panel) => [panel.title, panel.note, panel.message].filter(Boolean).join(": ")).join("; "));
    canvas.dataset.rects = JSON.stringify(panels.map(({ rect }) => [rect.x, rect.y, rect.w, rect.h].map(Math.round)));
  });
}

function showControls() {
  const { blocks, maps } = epochShown();
  const numbered = (length, noun) => Array.from({ length }, (_, i) => [i, `${noun} ${i + 1}`]);
  const withAll = (list, name) => (list.length > 1 ? [["all", name], ...list] : list);
  fill("view", views().map((view) => [view, VIEW_NAMES[view]]));
  fill("block", withAll(blocks.map((block, i) => [i, block.name]), "all blocks"));
  fill("head", withAll(numbered(headCount(), "head"), "all heads"));
  fill("map", withAll(maps.map((map, i) => [i, map.name]), "all maps"));
  byId("epoch").max = content.epochs.length - 1;
  for (const id of ["epoch", "opacity", "size"]) byId(id).value = state[id];
  byId("epoch-label").textContent = epochShown().label;
  byId("opacity-label").textContent = `${state.opacity}%`;
  byId("size-label").textContent = `${state.size}%`;
  byId("marks").checked = state.marks;
  byId("point").max = points.count - 1;
  const clusters = state.view === "clusters";
  const useful = { view: views().length > 1, block: clusters, head: clusters && headCount() > 1, map: state.view === "maps" && maps.length > 1,
    epoch: content.epochs.length > 1, opacity: state.view !== "input", size: !lattice, marks: clusters };
  for (const label of document.querySelectorAll("[data-for]")) label.hidden = !useful[label.dataset.for];
  byId("reset").hidden = lattice;
}

function fill(id, options) {
  const select = byId(id);
  select.replaceChildren(...options.map(([value, name]) => element("option", { value, textContent: name })));
  select.value = state[id];
}

function reset() {
  apply({ camera: { ...CAMERA }, point: null });
}

function turned() {
  hovered = null;
  clearTimeout(moving);
  moving = setTimeout(() => {
    moving = null;
    writeHash();
    redraw();
  }, 160);
  redraw();
}

function save() {
  const copy = document.createElement("canvas");
  const { clientWidth: width, clientHeight: height } = canvas;
  Object.assign(copy, { width: 2 * width, height: 2 * height });
  const context = copy.getContext("2d");
  context.scale(2, 2);
  draw(context, width, height, panels, pointInFocus(), 2);
  copy.toBlob((blob) => {
    const name = `${content.title} ${panels.length > 1 ? state.view : panels[0].title}`.replace(/[^\p{L}\p{N}.]+/gu, "_").slice(0, 100);
    const link = element("a", { href: URL.createObjectURL(blob), download: `${name}.png` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
}

function helpText() {
  if (TOUCH) return lattice ? "" : "Drag to turn; two fingers zoom and move.";
  const keys = content.epochs[LAST].blocks.length ? "blocks (left, right) and heads (up, down)" : "maps (left, right)";
  const mouse = "Drag to turn, scroll to zoom, drag with the right button or Shift to move; double-click resets.";
  return [...(views().length > 1 ? [`Arrow keys: ${keys}; Esc lets go of the point.`] : []), ...(lattice ? [] : [mouse])].join(" ");
}

// Left and right: the block, or the map; up and down: the head.
function press(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || ["INPUT", "SELECT"].includes(event.target.tagName)) return;
  if (event.key === "Escape") return apply({ point: null });
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
  const name = event.key === "ArrowUp" || event.key === "ArrowDown" ? "head" : state.view === "maps" ? "map" : "block";
  if (!step || (state.view !== "clusters" && name !== "map")) return;
  event.preventDefault();
  const length = name === "head" ? headCount() : epochShown()[`${name}s`].length;
  apply({ [name]: state[name] === "all" ? (step > 0 ? 0 : length - 1) : clamp(state[name] + step, 0, length - 1) });
}

for (const id of ["view", "block", "head", "map", "epoch", "opacity", "size"]) {
  byId(id).addEventListener("input", (event) => apply({ [id]: event.target.value }));
}
byId("marks").addEventListener("input", (event) => apply({ marks: event.target.checked }));
byId("point").addEventListener("input", ({ target }) => apply({ point: target.value === "" ? null : target.value }));
byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("save").addEventListener("click", save);
byId("reset").addEventListener("click", reset);
document.addEventListener("keydown", press);
addEventListener("hashchange", ({ newURL }) => {
  readHash(newURL);
  apply();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
new ResizeObserver(redraw).observe(byId("frame"));
listenToPointer(canvas, {
  panels: () => drawn,
  hover: (found) => {
    if (found?.point === hovered?.point && found?.panel === hovered?.panel) return;
    hovered = found;
    redraw();
  },
  keep: (found) => apply({ point: found === null || found.point === state.point ? null : found.point }),
  turned,
  reset,
});
document.title = content.title;
byId("title").textContent = content.title;
byId("subtitle").textContent = content.subtitle;
byId("marks-label").textContent = lattice ? "Centers & borders" : "Centers";
byId("notes").textContent = content.notes.join(" ");
byId("help").textContent = helpText();
readHash(location.href);
apply();
