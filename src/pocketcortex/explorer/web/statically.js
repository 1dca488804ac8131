// What a page asks of a folder of plain files: data from scripts beside it, models run right here.

import { bytes, floats } from "./colour.js";
import { root } from "./dom.js";
import { forward, gradient, withoutFilters } from "./engine.js";
import { levelsOfFile, planar, urlOf } from "./resize.js";
import { synthesizeHere } from "./ascend.js";

const store = (globalThis.pocketcortex ??= { neurons: {} });
const weightsOf = new Map();
const breathe = () => new Promise((done) => setTimeout(done));

// Return a neuron's data; its script is loaded if the page did not bring it.
async function told(name) {
  if (!store.neurons[name]) {
    await new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = `${root}data/${encodeURIComponent(name)}.js`;
      script.onload = done;
      script.onerror = () => failed(new Error(`there is no neuron ${name} here`));
      document.head.append(script);
    });
  }
  return store.neurons[name];
}

async function weights(name) {
  if (!weightsOf.has(name)) {
    const packed = (await told(name)).page.weights;
    weightsOf.set(name, Object.fromEntries(Object.entries(packed).map(([key, one]) => [key, { shape: one.shape, values: floats(one) }])));
  }
  return weightsOf.get(name);
}

// Return the levels of the image that a question is about.
async function levels(name, asked) {
  const { page, adversarial } = await told(name);
  const [height, width] = page.image_size;
  const url = asked.picture ? page.pictures[asked.picture] ?? adversarial.pictures[asked.picture] : `data:image/png;base64,${asked.png}`;
  return { image: await levelsOfUrl(url), height, width };
}

async function levelsOfUrl(url) {
  const picture = await createImageBitmap(new Blob([bytes(url.split(",")[1])], { type: "image/png" }), { colorSpaceConversion: "none" });
  return planar(picture, picture.width, picture.height);
}

async function left(name, without) {
  return withoutFilters(await weights(name), without || []);
}

export const statically = {
  static: true,
  address: (path) => (path.startsWith("data:") ? path : root + path),
  zooPage: `${root}zoo.html`,
  page: (name) => `${root}neuron/${encodeURIComponent(name)}.html`,
  comparePage: (a, b) => `${root}compare.html#a=${encodeURIComponent(a)}&b=${encodeURIComponent(b)}`,
  population: async () => store.population,
  neuron: async (name) => (await told(name)).page,
  looks: async (name) => (await told(name)).page,
  tuning: async (name) => (await told(name)).tuning,
  adversarial: async (name) => (await told(name)).adversarial,
  zoo: async () => ({ zoo: store.zoo }),

  async compare(a, b) {
    const pages = [(await told(a)).page, (await told(b)).page];
    const crossed = {};
    for (const kind of ["synthesized_max", "natural_max"]) {
      crossed[kind] = [];
      for (const name of [a, b]) {
        const row = [];
        for (const page of pages) row.push(forward(await weights(name), await levelsOfUrl(page.pictures[kind]), ...page.image_size).response);
        crossed[kind].push(row);
      }
    }
    return { neurons: pages, looks: pages.map((page) => page.looks), crossed, python: pages.map((page, k) => page.python.load.replace("model =", k ? "second =" : "first =")).join("") + pages[0].python.crossed };
  },

  async upload(name, file) {
    const { page } = await told(name);
    const [height, width] = page.image_size;
    if (height !== width) throw new Error("images can be dropped in for models of square images only");
    const image = await levelsOfFile(file, height);
    return { url: await urlOf(image, height, width), response: forward(await weights(name), image, height, width).response };
  },

  async respond(name, asked) {
    const { image, height, width } = await levels(name, asked);
    const intact = forward(await weights(name), image, height, width).response;
    const response = asked.without.length ? forward(await left(name, asked.without), image, height, width).response : intact;
    return { intact, response };
  },

  async effects(name, asked) {
    const { image, height, width } = await levels(name, asked);
    return { effects: gradient(await left(name, asked.without), image, height, width).effects };
  },

  async trace(name, asked) {
    const { image, height, width } = await levels(name, asked);
    const found = forward(await left(name, asked.without), image, height, width);
    const maps = {};
    const shaped = (values, [h, w]) => ({ shape: [values.length / (h * w), h, w], values });
    found.maps.forEach((values, i) => { maps[`maps${i}`] = shaped(values, found.sizes[i]); });
    found.filtered.forEach((values, i) => { maps[`filtered${i}`] = shaped(values, found.sizes[i]); });
    maps.products = shaped(found.products, found.sizes[4]);
    return { maps, by_filter: found.byFilter, bias: found.bias, response: found.response };
  },

  // What smoothing each patch would do, to first order: gradient times (smoothed minus image).
  async saliency(name, asked) {
    const { image, height, width } = await levels(name, asked);
    const { gradient: slope, response } = gradient(await weights(name), image, height, width);
    const smooth = blurred(image, height, width, (4 * height) / 112);
    const patch = Math.max(2, Math.round((12 * height) / 112)), step = Math.max(1, Math.floor(patch / 2));
    const map = [], corners = [];
    const first = (side) => Math.floor(((side - patch) % step) / 2);
    for (let top = first(height); top + patch <= height; top += step) {
      map.push([]);
      corners.push([]);
      for (let at = first(width); at + patch <= width; at += step) {
        let sum = 0;
        for (let c = 0; c < 3; c++) for (let y = top; y < top + patch; y++) for (let x = at; x < at + patch; x++) {
          const k = (c * height + y) * width + x;
          sum += slope[k] * (smooth[k] - image[k]);
        }
        map[map.length - 1].push(sum);
        corners[corners.length - 1].push([top, at]);
      }
    }
    return { map, corners, patch_px: patch, response, kind: "first order" };
  },

  // Run the stimuli of every curve through what is left; between images the page may breathe.
  async tuningWithout(name, without) {
    const { tuning, page } = await told(name);
    const [height, width] = page.image_size;
    const found = {}, model = await left(name, without);
    const n = 3 * height * width;
    for (const curve of tuning.curves) {
      const sheet = await sheetOf(curve, height, width);
      const responses = [];
      for (let k = 0; k < curve.n_images; k++) {
        responses.push(forward(model, sheet.subarray(k * n, (k + 1) * n), height, width).response);
        await breathe();
      }
      const each = curve.n_images / curve.x.length;
      found[curve.name] = curve.x.map((_, k) => responses.slice(k * each, (k + 1) * each).reduce((a, b) => a + b) / each);
    }
    return { without: found };
  },

  synthesize(name, asked, onStep) {
    let stopped = false;
    const run = async () => {
      const { page } = await told(name);
      await synthesizeHere(await weights(name), page.image_size, asked, onStep, () => stopped);
    };
    return { stop: () => { stopped = true; }, done: run() };
  },
};

// Return the images of a curve, one after the other, from the sheet that holds them one below the other.
async function sheetOf(curve, height, width) {
  if (!curve.levels) {
    const whole = await levelsOfUrl(curve.sheet), size = height * width;
    curve.levels = new Uint8ClampedArray(whole.length);
    for (let k = 0; k < curve.n_images; k++) for (let c = 0; c < 3; c++) {
      const from = c * curve.n_images * size + k * size;
      curve.levels.set(whole.subarray(from, from + size), (3 * k + c) * size);
    }
  }
  return curve.levels;
}

function blurred(image, height, width, sigma) {
  const radius = Math.ceil(3 * sigma), weights = [];
  for (let k = -radius; k <= radius; k++) weights.push(Math.exp((-k * k) / (2 * sigma * sigma)));
  const sum = weights.reduce((a, b) => a + b);
  const mirror = (k, n) => { let at = k; while (at < 0 || at >= n) at = at < 0 ? -at - 1 : 2 * n - 1 - at; return at; };
  const pass = (from, step, n, start) => {
    const line = Array.from({ length: n }, (_, k) => from[start + k * step]);
    return line.map((_, k) => weights.reduce((total, weight, j) => total + weight * line[mirror(k + j - radius, n)], 0) / sum);
  };
  const out = Float32Array.from(image);
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < height; y++) pass(out, 1, width, (c * height + y) * width).forEach((v, x) => { out[(c * height + y) * width + x] = v; });
    for (let x = 0; x < width; x++) pass(out, width, height, c * height * width + x).forEach((v, y) => { out[(c * height + y) * width + x] = v; });
  }
  return out;
}
