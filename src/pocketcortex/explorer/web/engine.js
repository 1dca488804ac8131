// A compact model in plain JavaScript: responses, maps of every stage, gradients. Typed arrays only.
//
// Weights have batch norm folded in (pocketcortex.models.numpy_weights): conv (n0, 3, 5, 5), then
// depthwise1..4 (n, 5, 5) and pointwise1..4 (m, n), bias0..4, readout (n4, rows, columns),
// readout_bias, image_mean. Images are planar, 3 x height x width, levels 0..255.

const K = 5;
const STRIDES = [1, 2, 2, 1, 1];

// Return zeros (before) and positions of a strided "same" convolution along one side.
function reach(size, stride) {
  const n = Math.ceil(size / stride);
  return { n, before: Math.floor(Math.max((n - 1) * stride + K - size, 0) / 2) };
}

// Add to `out` (h2 x w2) one 5 x 5 kernel's answer to one map (h x w).
function convolve(map, h, w, kernel, at, stride, out, to) {
  const [rows, columns] = [reach(h, stride), reach(w, stride)];
  for (let a = 0; a < K; a++) {
    for (let b = 0; b < K; b++) {
      const weight = kernel[at + a * K + b];
      if (weight === 0) continue;
      const [up, left] = [a - rows.before, b - columns.before];
      const firstX = Math.max(0, Math.ceil(-left / stride));
      const lastX = Math.min(columns.n, Math.floor((w - 1 - left) / stride) + 1);
      for (let y = 0; y < rows.n; y++) {
        const row = y * stride + up;
        if (row < 0 || row >= h) continue;
        let from = row * w + firstX * stride + left;
        let into = to + y * columns.n + firstX;
        for (let x = firstX; x < lastX; x++, into++, from += stride) out[into] += weight * map[from];
      }
    }
  }
}

// Add to `out` (h x w) the slopes (h2 x w2) led back through one kernel.
function convolveBack(slopes, from, h, w, kernel, at, stride, out, to) {
  const [rows, columns] = [reach(h, stride), reach(w, stride)];
  for (let a = 0; a < K; a++) {
    for (let b = 0; b < K; b++) {
      const weight = kernel[at + a * K + b];
      if (weight === 0) continue;
      const [up, left] = [a - rows.before, b - columns.before];
      for (let y = 0; y < rows.n; y++) {
        const row = y * stride + up;
        if (row < 0 || row >= h) continue;
        const firstX = Math.max(0, Math.ceil(-left / stride));
        const lastX = Math.min(columns.n, Math.floor((w - 1 - left) / stride) + 1);
        let into = to + row * w + firstX * stride + left;
        let source = from + y * columns.n + firstX;
        for (let x = firstX; x < lastX; x++, source++, into += stride) out[into] += weight * slopes[source];
      }
    }
  }
}

// Return the weights with the kernels of some filters ([stage, number], ...) set to zero.
export function withoutFilters(weights, filters) {
  const made = { ...weights };
  for (const [stage, number] of filters) {
    const name = stage === 0 ? "conv" : stage === 5 ? "readout" : `depthwise${stage}`;
    if (made[name] === weights[name]) made[name] = { shape: weights[name].shape, values: weights[name].values.slice() };
    const size = made[name].values.length / made[name].shape[0];
    made[name].values.fill(0, number * size, (number + 1) * size);
  }
  return made;
}

// Return every stage for an image: {filtered: [...], maps: [...], sizes, byFilter, products, response}.
export function forward(weights, image, height, width) {
  const n = height * width;
  const x = new Float32Array(3 * n);
  for (let c = 0; c < 3; c++) for (let k = 0; k < n; k++) x[c * n + k] = image[c * n + k] - weights.image_mean.values[c];
  const sizes = [[height, width]];
  const filtered = [], maps = [];
  const first = weights.conv.shape[0];
  const convolved = new Float32Array(first * n);
  for (let f = 0; f < first; f++) {
    for (let c = 0; c < 3; c++) convolve(x.subarray(c * n, (c + 1) * n), height, width, weights.conv.values, (f * 3 + c) * K * K, 1, convolved, f * n);
  }
  filtered.push(convolved);
  maps.push(rectified(convolved, weights.bias0.values, n));
  for (let i = 1; i < STRIDES.length; i++) {
    const [h, w] = sizes[i - 1];
    const [h2, w2] = [reach(h, STRIDES[i]).n, reach(w, STRIDES[i]).n];
    const [outputs, inputs] = weights[`pointwise${i}`].shape;
    const z = new Float32Array(inputs * h2 * w2);
    for (let c = 0; c < inputs; c++) convolve(maps[i - 1].subarray(c * h * w, (c + 1) * h * w), h, w, weights[`depthwise${i}`].values, c * K * K, STRIDES[i], z, c * h2 * w2);
    const sums = new Float32Array(outputs * h2 * w2);
    mix(weights[`pointwise${i}`].values, z, sums, outputs, inputs, h2 * w2);
    sizes.push([h2, w2]);
    filtered.push(z);
    maps.push(rectified(sums, weights[`bias${i}`].values, h2 * w2));
  }
  const last = maps[maps.length - 1], products = new Float32Array(last.length), byFilter = [];
  const size = last.length / weights.readout.shape[0];
  for (let f = 0; f < weights.readout.shape[0]; f++) {
    let sum = 0;
    for (let k = f * size; k < (f + 1) * size; k++) {
      products[k] = last[k] * weights.readout.values[k];
      sum += products[k];
    }
    byFilter.push(sum);
  }
  const bias = weights.readout_bias.values[0];
  return { filtered, maps, sizes, products, byFilter, bias, response: byFilter.reduce((a, b) => a + b, bias) };
}

// Return the response to an image, its derivative by every level, and, to first order, what each
// filter adds to the response: its output times the response's derivative by it, summed.
export function gradient(weights, image, height, width) {
  const found = forward(weights, image, height, width);
  const effects = [found.byFilter];
  let slope = Float32Array.from(weights.readout.values);
  for (let i = STRIDES.length - 1; i > 0; i--) {
    silence(slope, found.maps[i]);
    const [h, w] = found.sizes[i - 1];
    const [h2, w2] = found.sizes[i];
    const [outputs, inputs] = weights[`pointwise${i}`].shape;
    const back = new Float32Array(inputs * h2 * w2);
    mixBack(weights[`pointwise${i}`].values, slope, back, outputs, inputs, h2 * w2);
    effects.unshift(overlap(found.filtered[i], back, inputs));
    slope = new Float32Array(inputs * h * w);
    for (let c = 0; c < inputs; c++) convolveBack(back, c * h2 * w2, h, w, weights[`depthwise${i}`].values, c * K * K, STRIDES[i], slope, c * h * w);
  }
  silence(slope, found.maps[0]);
  effects.unshift(overlap(found.filtered[0], slope, weights.conv.shape[0]));
  const n = height * width, out = new Float32Array(3 * n);
  for (let f = 0; f < weights.conv.shape[0]; f++) {
    for (let c = 0; c < 3; c++) convolveBack(slope, f * n, height, width, weights.conv.values, (f * 3 + c) * K * K, 1, out, c * n);
  }
  return { response: found.response, gradient: out, effects: effects.flat() };
}

function overlap(maps, slopes, n) {
  const size = maps.length / n;
  return Array.from({ length: n }, (_, f) => {
    let sum = 0;
    for (let k = f * size; k < (f + 1) * size; k++) sum += maps[k] * slopes[k];
    return sum;
  });
}

function rectified(sums, bias, size) {
  const out = new Float32Array(sums.length);
  for (let f = 0; f < bias.length; f++) for (let k = f * size; k < (f + 1) * size; k++) out[k] = Math.max(0, sums[k] + bias[f]);
  return out;
}

function silence(slope, maps) {
  for (let k = 0; k < slope.length; k++) if (maps[k] <= 0) slope[k] = 0;
}

function mix(weights, inputs, out, nOut, nIn, size) {
  for (let f = 0; f < nOut; f++) {
    for (let c = 0; c < nIn; c++) {
      const weight = weights[f * nIn + c];
      for (let k = 0, a = f * size, b = c * size; k < size; k++) out[a + k] += weight * inputs[b + k];
    }
  }
}

function mixBack(weights, slopes, out, nOut, nIn, size) {
  for (let f = 0; f < nOut; f++) {
    for (let c = 0; c < nIn; c++) {
      const weight = weights[f * nIn + c];
      for (let k = 0, a = f * size, b = c * size; k < size; k++) out[b + k] += weight * slopes[a + k];
    }
  }
}
