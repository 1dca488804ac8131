// An image synthesized in the browser: the recipe of pocketcortex.stimuli.synthesize, other noise.

import { forward, gradient } from "./engine.js";
import { urlOf } from "./resize.js";

const STEP = 10, SMOOTH_EVERY = 50, OFFSET = 1e-5;
const LINE = [-4, -3, -2, -1, 0, 1, 2, 3, 4].map((k) => Math.exp((-k * k) / 2));
const TOTAL = LINE.reduce((a, b) => a + b);

export async function synthesizeHere(weights, [height, width], asked, onStep, stopped) {
  const random = randomNumbers(asked.seed), sign = asked.minimize ? -1 : 1, n = 3 * height * width;
  let x = Float32Array.from({ length: n }, () => 128 + 50 * random());
  let best = x, highest = -Infinity;
  const keep = (image, response) => { if (sign * response > highest) [best, highest] = [image.slice(), sign * response]; };
  for (let step = 0; step <= asked.n_steps; step++) {
    await new Promise((done) => setTimeout(done));
    if (stopped()) return;
    const last = step === asked.n_steps;
    const found = last ? forward(weights, x, height, width) : gradient(weights, x, height, width);
    keep(x, found.response);
    const shown = Uint8ClampedArray.from(last ? best : x, Math.round);
    const line = { step, response: found.response, best: last ? forward(weights, shown, height, width).response : sign * highest };
    if (last || step % 3 === 0) line.png = (await urlOf(shown, height, width)).split(",")[1];
    onStep(last ? { ...line, done: true } : line);
    if (last) return;
    x = moved(x, found.gradient, sign, height, width);
    if (step > 0 && step % SMOOTH_EVERY === 0) {
      keep(x, forward(weights, x, height, width).response);
      x = smoothed(x, height, width);
    }
  }
}

function moved(x, slope, sign, height, width) {
  let squares = 0;
  for (const value of slope) squares += value * value;
  const size = Math.sqrt(squares / slope.length) + OFFSET;
  const push = smoothed(slope.map((value) => value / size), height, width);
  return x.map((value, k) => Math.min(255, Math.max(0, value + sign * STEP * push[k])));
}

// Smooth by a Gaussian of 1 pixel, borders mirrored with their edge repeated.
function smoothed(x, height, width) {
  const across = new Float32Array(x.length), out = new Float32Array(x.length);
  const mirror = (k, n) => (k < 0 ? -k - 1 : k >= n ? 2 * n - 1 - k : k);
  for (let row = 0; row < 3 * height; row++) for (let k = 0; k < width; k++) {
    let sum = 0;
    for (let j = -4; j <= 4; j++) sum += LINE[j + 4] * x[row * width + mirror(k + j, width)];
    across[row * width + k] = sum / TOTAL;
  }
  for (let c = 0; c < 3; c++) for (let y = 0; y < height; y++) for (let k = 0; k < width; k++) {
    let sum = 0;
    for (let j = -4; j <= 4; j++) sum += LINE[j + 4] * across[(c * height + mirror(y + j, height)) * width + k];
    out[(c * height + y) * width + k] = sum / TOTAL;
  }
  return out;
}

// Return a source of numbers within 0..1 (mulberry32).
function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
