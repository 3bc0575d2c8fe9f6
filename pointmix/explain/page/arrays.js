// The content, and its arrays: decoded when first read.
const content = JSON.parse(document.getElementById("content").textContent);
const TYPES = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, f32: Float32Array };
const decoded = new Map();

function array(index) {
  if (!decoded.has(index)) {
    const { dtype, data } = content.arrays[index];
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    decoded.set(index, new TYPES[dtype](bytes.buffer));
  }
  return decoded.get(index);
}

// Values of each shown point: those of its nearest point, where nearest is an array.
function spread(index, nearest) {
  const values = array(index);
  return nearest === null ? values : Uint8Array.from(array(nearest), (near) => values[near]);
}

const shape = (index) => content.arrays[index].shape;
const points = content.points;
const lattice = content.kind === "lattice";
