// Plain line charts and heat maps, as SVG and canvas.

import { CHANGED, INK, paint } from "./colour.js";
import { h, number, svg } from "./dom.js";

const LEFT = 34, RIGHT = 12, TOP = 8, BOTTOM = 32;

// Return a chart of lines [{y, colour, name}] over x, or over an x of their own; `level` is drawn
// as a dotted line.
export function lineChart({ title, xLabel, x, lines, level = null, colours = null, wide = false }) {
  const [W, H] = wide ? [640, 260] : [250, 150];
  const all = lines.flatMap((line) => line.y).concat(level === null ? [] : [level]).filter(Number.isFinite);
  let [low, high] = [Math.min(...all), Math.max(...all)];
  if (!(high > low)) [low, high] = [low - 1, high + 1];
  const margin = (high - low) * 0.06;
  const [bottom, top] = [low - margin, high + margin];
  const across = (k, own = x) => LEFT + ((own[k] - x[0]) / (x[x.length - 1] - x[0] || 1)) * (W - LEFT - RIGHT);
  const up = (y) => TOP + ((top - y) / (top - bottom)) * (H - TOP - BOTTOM);
  const text = (at, left, anchor, words, more = {}) => svg("text", { x: left, y: at, "text-anchor": anchor, class: "tick", ...more }, words);
  const marks = ticks(low, high).map(([value, label]) => [
    svg("line", { x1: LEFT - 3, x2: LEFT, y1: up(value), y2: up(value), class: "axis" }), text(up(value) + 3.5, LEFT - 5, "end", label),
  ]).flat();
  const ends = ticks(x[0], x[x.length - 1]).map(([value, label]) => [
    svg("line", { x1: across(0, [value]), x2: across(0, [value]), y1: H - BOTTOM, y2: H - BOTTOM + 3, class: "axis" }),
    text(H - BOTTOM + 13, across(0, [value]), "middle", label),
  ]).flat();
  const drawn = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "chart", role: "img", "aria-label": `${title}: ${lines.map((line) => `${line.name} from ${number(Math.min(...line.y))} to ${number(Math.max(...line.y))}`).join("; ")}` },
    svg("line", { x1: LEFT, x2: W - RIGHT, y1: H - BOTTOM, y2: H - BOTTOM, class: "axis" }),
    svg("line", { x1: LEFT, x2: LEFT, y1: TOP, y2: H - BOTTOM, class: "axis" }),
    level === null ? [] : svg("line", { x1: LEFT, x2: W - RIGHT, y1: up(level), y2: up(level), class: "level" }),
    marks, ends, text(H - 5, (LEFT + W - RIGHT) / 2, "middle", xLabel, { class: "label" }),
    lines.map((line) => {
      const seen = line.y.map((y, k) => [across(k, line.x), y === null ? NaN : up(y), k]).filter((one) => Number.isFinite(one[1]));
      return [
        svg("polyline", { points: seen.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" "), fill: "none", stroke: line.colour || INK, class: "line" }),
        seen.map(([a, b, k]) => svg("circle", { cx: a.toFixed(1), cy: b.toFixed(1), r: colours ? 3.5 : 1.8, fill: colours && line.colour !== CHANGED ? colours[k] : line.colour || INK },
          svg("title", {}, `${line.x ? `${line.name}, ${line.titles[k]}` : short(x[k])}: ${number(line.y[k], 3)}`))),
      ];
    }),
  );
  return h("figure", {}, h("figcaption", {}, title), drawn);
}

// Return a heat map of rows of values, red above and blue below `level`.
export function heatMap({ title, rows, level = 0 }) {
  const values = rows.flat().map((value) => value - level);
  const canvas = h("canvas", { class: "heat", role: "img", "aria-label": title });
  paint(canvas, values, rows.length, rows[0].length, Math.max(...values.map(Math.abs)));
  return h("figure", {}, h("figcaption", {}, title), canvas);
}

// Return round numbers within a range and what to write beside them, all to the same decimals.
function ticks(low, high) {
  const step = 10 ** Math.floor(Math.log10((high - low) / 2));
  const size = [1, 2, 5, 10].map((k) => k * step).find((one) => (high - low) / one <= 4);
  const found = [];
  const decimals = Math.max(0, -Math.floor(Math.log10(size) + 1e-9));
  for (let k = Math.ceil(low / size - 1e-9); k * size <= high + 1e-9 * size; k++) found.push([k * size, number(k * size, decimals)]);
  return found;
}

function short(value) {
  const size = Math.abs(value);
  return number(value, size >= 10 || Number.isInteger(value) ? 0 : size >= 1 ? 1 : 2);
}
