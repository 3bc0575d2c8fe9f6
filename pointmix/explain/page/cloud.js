// A cloud as depth-tested discs: which point each pixel of a picture shows (-1: none), its depth and its shade.
const FOCAL = 1.6; // by the shorter side
const LARGEST = 0.035; // radius of a disc by the shorter side
const NEAREST = 0.02; // clipped in front of the eye; a unit is half the diagonal of the cloud's box
let cloud = null;
let cloudSurface = null;

function cloudPoints() {
  if (cloud === null) {
    const position = array(points.position);
    const low = [Infinity, Infinity, Infinity];
    const high = [-Infinity, -Infinity, -Infinity];
    position.forEach((value, i) => {
      low[i % 3] = Math.min(low[i % 3], value);
      high[i % 3] = Math.max(high[i % 3], value);
    });
    const middle = low.map((value, axis) => (value + high[axis]) / 2);
    const unit = Math.hypot(...low.map((value, axis) => high[axis] - value)) / 2 || 1;
    const toUnits = (values) => Float32Array.from(values, (value, i) => (value - middle[i % 3]) / unit);
    const xyz = toUnits(position);
    cloud = { xyz, toUnits, radius: 1.5 * spacing(xyz) };
  }
  return cloud;
}

// Distance of a point to its nearest neighbor, of some points: most are nearer.
function spacing(xyz) {
  const count = xyz.length / 3;
  const found = [];
  for (let a = 0; a < count; a += Math.ceil(count / 200)) {
    let least = Infinity;
    for (let b = 0; b < count; b++) {
      const x = xyz[3 * a] - xyz[3 * b], y = xyz[3 * a + 1] - xyz[3 * b + 1], z = xyz[3 * a + 2] - xyz[3 * b + 2];
      const square = x * x + y * y + z * z;
      if (square > 0 && square < least) least = square;
    }
    found.push(Math.sqrt(least));
  }
  const most = found.sort((a, b) => a - b)[Math.floor(0.8 * found.length)];
  return clamp(most, 0.001, 0.03);
}

// Directions to the right, up and toward the eye; the third axis is up.
function axes({ yaw, pitch }) {
  const [sy, cy, sp, cp] = [Math.sin(yaw), Math.cos(yaw), Math.sin(pitch), Math.cos(pitch)];
  return [[cy, sy, 0], [-sy * sp, cy * sp, cp], [sy * cp, -cy * cp, sp]];
}

const dot = (axis, xyz, i) => axis[0] * xyz[i] + axis[1] * xyz[i + 1] + axis[2] * xyz[i + 2];

// Distance of the eye and the position it looks at, so that the cloud as first seen fills a picture.
const frames = new Map(); // by the picture's proportion
function framed(width, height) {
  const proportion = (width / height).toFixed(2);
  if (!frames.has(proportion)) frames.set(proportion, frameFor(width, height));
  return frames.get(proportion);
}

function frameFor(width, height) {
  const { xyz, radius } = cloudPoints();
  const [right, up, toward] = axes(CAMERA);
  const focal = FOCAL * Math.min(width, height);
  const step = 3 * Math.ceil(xyz.length / 3 / 5000);
  const all = [];
  for (let i = 0; i < xyz.length; i += step) all.push([dot(right, xyz, i), dot(up, xyz, i), dot(toward, xyz, i)]);
  const at = (values, part) => values.sort((a, b) => a - b)[Math.round(part * (values.length - 1))]; // without outliers
  let [x, y, distance] = [0, 0, 2];
  for (let round = 0; round < 5; round++) {
    const rim = Math.min((radius * focal) / distance, LARGEST * Math.min(width, height)); // of the outermost discs
    const [w, h] = [0.97 * width - 2 * rim, 0.97 * height - 2 * rim];
    const reach = ([px, py, pz]) => pz + 2 * focal * Math.max(Math.abs(px - x) / w, Math.abs(py - y) / h);
    distance = Math.max(0.1, at(all.map(reach), 0.9995));
    const middle = (part) => {
      const seen = all.map((p) => (p[part] - [x, y][part]) / Math.max(NEAREST, distance - p[2]));
      return ((at(seen, 0.0005) + at(seen, 0.9995)) / 2) * distance;
    };
    [x, y] = [x + middle(0), y + middle(1)];
  }
  return { distance, target: right.map((value, axis) => value * x + up[axis] * y) };
}

// A function from a position to {x, y, depth, scale}, in pixels of a picture.
function projection(width, height) {
  const { distance, target } = framed(width, height);
  const [right, up, toward] = axes(state.camera);
  const focal = FOCAL * Math.min(width, height);
  const [a, b, c] = [right, up, toward].map((axis) => dot(axis, target, 0));
  const eye = distance / state.camera.zoom;
  const [x0, y0] = [width / 2 + state.camera.x * height, height / 2 + state.camera.y * height];
  return (xyz, i) => {
    const depth = eye - (dot(toward, xyz, i) - c);
    const scale = focal / depth;
    return { x: x0 + (dot(right, xyz, i) - a) * scale, y: y0 - (dot(up, xyz, i) - b) * scale, depth, scale };
  };
}

function cloudOf(width, height, ratio) {
  const key = JSON.stringify([width, height, ratio, state.size, state.camera]);
  if (cloudSurface?.key !== key) {
    const w = Math.max(1, Math.round(width * ratio)), h = Math.max(1, Math.round(height * ratio));
    const project = projection(w, h);
    cloudSurface = { key, width: w, height: h, project, ...discs(w, h, project, ratio) };
    cloudSurface.shade = shades(cloudSurface, ratio);
  }
  return cloudSurface;
}

function discs(width, height, project, ratio) {
  const { xyz, radius } = cloudPoints();
  const index = new Int32Array(width * height).fill(-1);
  const depth = new Float32Array(width * height).fill(Infinity);
  const world = (radius * state.size) / 100;
  const most = Math.max(0.6 * ratio, LARGEST * Math.min(width, height));
  for (let i = 0; i < xyz.length; i += 3) {
    const p = project(xyz, i);
    if (p.depth < NEAREST) continue;
    const r = clamp(world * p.scale, 0.6 * ratio, most);
    const bulge = world / (r * r); // a disc is farther at its rim: where discs overlap, the nearer middle is seen
    const y1 = Math.min(height - 1, Math.floor(p.y + r));
    for (let y = Math.max(0, Math.ceil(p.y - r)); y <= y1; y++) {
      const dy = y - p.y;
      const half = Math.sqrt(Math.max(0, r * r - dy * dy));
      const x1 = Math.min(width - 1, Math.floor(p.x + half));
      for (let x = Math.max(0, Math.ceil(p.x - half)); x <= x1; x++) {
        const z = p.depth + bulge * (dy * dy + (x - p.x) * (x - p.x));
        const at = y * width + x;
        if (z < depth[at]) {
          depth[at] = z;
          index[at] = i / 3;
        }
      }
    }
  }
  return { index, depth };
}

// Eye-dome lighting (Boucheny 2009): a pixel is darker the farther it lies behind its neighbors.
function shades({ width, height, index, depth }, ratio) {
  const shade = new Uint8Array(width * height).fill(255);
  const bias = 1.2 * cloudPoints().radius;
  const step = Math.max(1, Math.round(1.5 * ratio));
  const limited = (gap) => (gap > 0 ? Math.min(gap, 0.12) : 0);
  for (let y = step; y < height - step; y++) {
    for (let x = step; x < width - step; x++) {
      const at = y * width + x;
      if (index[at] < 0) continue;
      const near = depth[at] - bias;
      const behind = limited(near - depth[at - step]) + limited(near - depth[at + step]) +
        limited(near - depth[at - step * width]) + limited(near - depth[at + step * width]);
      if (behind > 0) shade[at] = 255 * Math.max(0.3, Math.exp(-6 * behind));
    }
  }
  return shade;
}

// Where a position is in a panel's picture, and whether it lies in front of the points there.
function inCloud(rect, { width, height, depth, project }, xyz, i) {
  const p = project(xyz, i);
  const [x, y] = [Math.round(p.x), Math.round(p.y)];
  const inside = x >= 0 && y >= 0 && x < width && y < height;
  return {
    x: rect.x + (p.x * rect.w) / width,
    y: rect.y + (p.y * rect.h) / height,
    near: !inside || p.depth < depth[y * width + x] + 0.04,
    hidden: p.depth < NEAREST,
  };
}
