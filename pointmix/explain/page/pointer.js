// Mouse, touch and pen on the picture: the point in focus, and the camera of a cloud.
const SEARCH = 6; // pixels of the page around the pointer in which a point of a cloud is looked for
const held = new Map(); // pointers that are down, by id
let moved = false; // since the first of them went down

// The panel at a place, and its point there, or null.
function pick(panels, x, y) {
  const panel = panels.find(({ rect }) => x >= rect.x && y >= rect.y && x < rect.x + rect.w && y < rect.y + rect.h);
  if (!panel) return null;
  const { width, height, index } = panel.surface;
  const scale = width / panel.rect.w;
  const [px, py] = [Math.floor((x - panel.rect.x) * scale), Math.floor((y - panel.rect.y) * scale)];
  const reach = lattice ? 0 : Math.round(SEARCH * scale);
  let [best, nearest] = [null, Infinity];
  for (let qy = Math.max(0, py - reach); qy <= Math.min(height - 1, py + reach); qy++) {
    for (let qx = Math.max(0, px - reach); qx <= Math.min(width - 1, px + reach); qx++) {
      const square = (qx - px) ** 2 + (qy - py) ** 2;
      if (index[qy * width + qx] >= 0 && square < nearest) [best, nearest] = [index[qy * width + qx], square];
    }
  }
  return { panel, point: best };
}

function listenToPointer(canvas, { panels, hover, keep, turned, reset }) {
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.style.touchAction = lattice ? "pan-y" : "none";
  canvas.addEventListener("pointerdown", (event) => {
    if (!held.size) moved = false;
    held.set(event.pointerId, place(event));
    if (!lattice) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = place(event);
    const before = held.get(event.pointerId);
    if (!before) {
      hover(pick(panels(), ...now));
      return;
    }
    if (!moved && Math.hypot(now[0] - before[0], now[1] - before[1]) < 4) return;
    moved = true;
    if (lattice) return;
    drag(event, before, now, panels()[0].rect);
    held.set(event.pointerId, now);
    turned();
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => {
      if (name === "pointerup" && !moved && held.size === 1 && event.button === 0) keep(pick(panels(), ...place(event)));
      held.delete(event.pointerId);
    });
  }
  canvas.addEventListener("pointerleave", (event) => {
    held.delete(event.pointerId);
    hover(null);
  });
  if (lattice) return;
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", reset);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-0.0015 * clamp(event.deltaY * (event.deltaMode === 1 ? 20 : 1), -200, 200)));
    turned();
  }, { passive: false });
}

const zoom = (factor) => (state.camera.zoom = clamp(state.camera.zoom * factor, 0.2, 20));

function pan(dx, dy, rect) {
  state.camera.x += dx / rect.h;
  state.camera.y += dy / rect.h;
}

function drag(event, before, now, rect) {
  const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
  const other = [...held].find(([id]) => id !== event.pointerId)?.[1];
  if (other) {
    // two fingers: their distance zooms, their middle moves
    const apart = (a) => Math.max(10, Math.hypot(a[0] - other[0], a[1] - other[1]));
    zoom(apart(now) / apart(before));
    pan(dx / 2, dy / 2, rect);
  } else if (event.shiftKey || event.buttons & 6) {
    pan(dx, dy, rect);
  } else {
    state.camera.yaw -= dx * 0.008;
    state.camera.pitch = clamp(state.camera.pitch + dy * 0.008, -Math.PI / 2, Math.PI / 2);
  }
}
