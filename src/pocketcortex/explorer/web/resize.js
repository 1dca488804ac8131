// Pictures as planar levels: decoded by the browser, resized as Pillow's bicubic filter does.

const BITS = 22;

function bicubic(x) {
  const at = Math.abs(x);
  if (at < 1) return (1.5 * at - 2.5) * at * at + 1;
  return at < 2 ? (((at - 5) * at + 8) * at - 4) * -0.5 : 0;
}

// Return for each of `size` pixels where in `length` it reads from, and by which whole weights.
function taps(length, size) {
  const scale = length / size;
  const stretch = Math.max(scale, 1);
  const support = 2 * stretch;
  return Array.from({ length: size }, (_, k) => {
    const centre = (k + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(length, Math.trunc(centre + support + 0.5));
    const weights = [];
    for (let j = first; j < last; j++) weights.push(bicubic((j - centre + 0.5) / stretch));
    const sum = weights.reduce((a, b) => a + b, 0);
    const whole = weights.map((weight) => {
      const scaled = (weight / sum) * 2 ** BITS;
      return Math.trunc(scaled + (scaled < 0 ? -0.5 : 0.5));
    });
    return { first, weights: whole };
  });
}

const level = (sum) => Math.min(255, Math.max(0, Math.floor(sum / 2 ** BITS)));

// Return levels (3 x height x width) in another size: across first, then down, rounded in between.
export function resize(levels, height, width, newHeight, newWidth) {
  const across = width === newWidth ? levels : new Uint8ClampedArray(3 * height * newWidth);
  if (width !== newWidth) {
    taps(width, newWidth).forEach(({ first, weights }, x) => {
      for (let row = 0; row < 3 * height; row++) {
        let sum = 2 ** (BITS - 1);
        for (let j = 0; j < weights.length; j++) sum += levels[row * width + first + j] * weights[j];
        across[row * newWidth + x] = level(sum);
      }
    });
  }
  if (height === newHeight) return across;
  const out = new Uint8ClampedArray(3 * newHeight * newWidth);
  taps(height, newHeight).forEach(({ first, weights }, y) => {
    for (let c = 0; c < 3; c++) {
      for (let x = 0; x < newWidth; x++) {
        let sum = 2 ** (BITS - 1);
        for (let j = 0; j < weights.length; j++) sum += across[(c * height + first + j) * newWidth + x] * weights[j];
        out[(c * newHeight + y) * newWidth + x] = level(sum);
      }
    }
  });
  return out;
}

// Return the levels of a picture file: short side resized to `size`, the centre square cut out.
export async function levelsOfFile(file, size) {
  let picture;
  try {
    picture = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error(`${file.name || "the file"} cannot be decoded; use a JPEG or PNG file`);
  }
  const { width, height } = picture;
  const scale = size / Math.min(width, height);
  const [w, h] = [width, height].map((side) => Math.max(size, roundHalfEven(side * scale)));
  const whole = resize(planar(picture, width, height), height, width, h, w);
  const [left, top] = [Math.floor((w - size) / 2), Math.floor((h - size) / 2)];
  const out = new Uint8ClampedArray(3 * size * size);
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < size; y++) {
      const from = (c * h + top + y) * w + left;
      out.set(whole.subarray(from, from + size), (c * size + y) * size);
    }
  }
  return out;
}

function roundHalfEven(value) {
  const low = Math.floor(value);
  const over = value - low;
  return over > 0.5 || (over === 0.5 && low % 2 === 1) ? low + 1 : low;
}

// Return the levels of something that can be drawn, channels first.
export function planar(picture, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const n = width * height, out = new Uint8ClampedArray(3 * n);
  for (let k = 0; k < n; k++) {
    if (data[4 * k + 3] !== 255) throw new Error("the picture has transparent pixels; save it on the background it was shown on");
    for (let c = 0; c < 3; c++) out[c * n + k] = data[4 * k + c];
  }
  return out;
}

// Return levels as the URL of a PNG.
export async function urlOf(levels, height, width) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const n = width * height;
  for (let k = 0; k < n; k++) picture.data.set([levels[k], levels[n + k], levels[2 * n + k], 255], 4 * k);
  context.putImageData(picture, 0, 0);
  return canvas.toDataURL("image/png");
}
