// What is shown, and the same in the URL after "#".
const CAMERA = { yaw: -0.4, pitch: 0.3, zoom: 1, x: 0, y: 0 }; // radians; x and y are parts of the panel's height
const LAST = content.epochs.length - 1;
const GROUPING = content.epochs[LAST].blocks.findIndex((block) => !block.trivial);
const DEFAULTS = {
  view: "clusters", block: Math.max(0, GROUPING), head: 0, map: "all", epoch: LAST, opacity: 60, size: 100, marks: true,
  point: null, camera: CAMERA,
};
const state = { ...DEFAULTS, camera: { ...CAMERA } };

let writing = null;

const epochShown = () => content.epochs[state.epoch];
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
const whole = (value, count) => clamp(Math.round(Number(value)) || 0, 0, Math.max(0, count - 1));
const wholeOrAll = (value, count) => (value === "all" && count > 1 ? "all" : whole(value, count));
const headsOf = (block) => shape(block.center)[1];

function views() {
  const { blocks, reduced, maps } = epochShown();
  return [...(blocks.length ? ["clusters"] : []), ...(reduced ? ["reduced"] : []), ...(maps.length ? ["maps"] : []), "input"];
}

// The heads of the block shown, or the most of any block.
function headCount() {
  const { blocks } = epochShown();
  return Math.max(1, ...(state.block === "all" ? blocks : blocks.slice(state.block, state.block + 1)).map(headsOf));
}

// Set values; those that do not fit any more become the nearest that do.
function change(values) {
  Object.assign(state, values);
  state.epoch = whole(state.epoch, content.epochs.length);
  state.view = views().includes(state.view) ? state.view : views()[0];
  state.block = wholeOrAll(state.block, epochShown().blocks.length);
  if (state.block === "all" && state.head === "all") state[values.block === "all" ? "head" : "block"] = 0;
  state.head = wholeOrAll(state.head, headCount());
  if (state.map !== "all") state.map = whole(state.map, epochShown().maps.length); // beside the input, also of one
  state.opacity = clamp(Number(state.opacity) || 0, 0, 100);
  state.size = clamp(Number(state.size) || 100, 50, 250);
  if (state.point !== null) state.point = whole(state.point, points.count);
}

function writeHash() {
  if (writing === null) writing = setTimeout(writeHashNow, 200); // browsers limit how often
}

function writeHashNow() {
  writing = null;
  const { camera, ...others } = state;
  const values = new URLSearchParams(Object.entries(others).filter(([, value]) => value !== null));
  if (Object.keys(CAMERA).some((key) => camera[key] !== CAMERA[key])) {
    values.set("camera", Object.values(camera).map((value) => value.toFixed(3)).join(" "));
  }
  history.replaceState(null, "", `#${values}`);
}

// Take the state from an address; what it lacks is as at first.
function readHash(address) {
  const { camera, marks, ...values } = Object.fromEntries(new URLSearchParams(new URL(address).hash.slice(1)));
  for (const key of Object.keys(values)) if (!(key in DEFAULTS)) delete values[key];
  const numbers = (camera ?? "").split(" ").map(Number);
  const names = Object.keys(CAMERA);
  const valid = numbers.length === names.length && numbers.every(Number.isFinite) && numbers[2] > 0;
  const place = valid ? Object.fromEntries(names.map((name, i) => [name, numbers[i]])) : { ...CAMERA };
  change({ ...DEFAULTS, ...values, marks: marks !== "false", camera: place });
}
