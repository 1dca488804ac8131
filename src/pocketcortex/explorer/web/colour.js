// Colours, and arrays drawn as pictures. Red excites, blue inhibits: apart for colour-blind readers.

const STOPS = {
  positive: [[255, 255, 255], [244, 165, 130], [178, 24, 43], [103, 0, 31]],
  negative: [[255, 255, 255], [146, 197, 222], [33, 102, 172], [5, 48, 97]],
};

export const INK = "#222222";
export const CHANGED = "#d55e00";
export const EXCITES = "#b2182b";
export const INHIBITS = "#2166ac";

function mixed(stops, share) {
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const k = Math.min(Math.floor(at), stops.length - 2);
  return stops[k].map((low, c) => low + (at - k) * (stops[k + 1][c] - low));
}

// Return red, green, blue for a value within -limit..limit.
export function diverging(value, limit) {
  return mixed(value < 0 ? STOPS.negative : STOPS.positive, limit > 0 ? Math.abs(value) / limit : 0);
}

// Draw values (rows first) on a canvas of as many pixels.
export function paint(canvas, values, height, width, limit, colours = diverging) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  for (let k = 0; k < height * width; k++) {
    const [r, g, b] = colours(values[k], limit);
    picture.data.set([r, g, b, 255], 4 * k);
  }
  context.putImageData(picture, 0, 0);
}

// Draw a kernel over red, green and blue as the colours it adds up to, grey where it is 0.
export function paintColours(canvas, values, side, limit) {
  canvas.width = side;
  canvas.height = side;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(side, side);
  const n = side * side;
  for (let k = 0; k < n; k++) {
    const rgb = [0, 1, 2].map((c) => 127.5 + (127.5 * values[c * n + k]) / limit);
    picture.data.set([...rgb, 255], 4 * k);
  }
  context.putImageData(picture, 0, 0);
}

export function largest(values) {
  let most = 0;
  for (const value of values) most = Math.max(most, Math.abs(value));
  return most;
}

// Return float32 numbers of {shape, float32}.
export function floats(packed) {
  return new Float32Array(bytes(packed.float32).buffer);
}

export function bytes(base64) {
  const text = atob(base64);
  const found = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) found[k] = text.charCodeAt(k);
  return found;
}

// Return map j of {shape, limits, int8} or {shape, values} as {values, height, width, limit}.
export function mapOf(maps, j) {
  const [, height, width] = maps.shape;
  const n = height * width;
  if (maps.values) {
    const values = maps.values.subarray(j * n, (j + 1) * n);
    return { values, height, width, limit: largest(values) };
  }
  if (!maps.steps) maps.steps = new Int8Array(bytes(maps.int8).buffer);
  const steps = maps.steps.subarray(j * n, (j + 1) * n);
  return {
    values: Float32Array.from(steps, (step) => (step / 127) * maps.limits[j]), height, width, limit: maps.limits[j],
  };
}
