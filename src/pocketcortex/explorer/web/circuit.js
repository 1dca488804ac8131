// Six stages of kernels; a chosen one's links, and bars for what each does to the response.

import { EXCITES, INHIBITS, floats, largest, paint, paintColours } from "./colour.js";
import { h, clear, number, svg } from "./dom.js";

export const STAGES = ["layer 0", "layer 1", "layer 2", "layer 3", "layer 4", "readout"];
const KINDS = ["over colours", "depthwise", "depthwise", "depthwise", "depthwise", "spatial"];
const N_LINKS = 10;

// Return a neuron's weights as arrays.
export function unpack(weights) {
  const found = {};
  for (const [name, packed] of Object.entries(weights)) found[name] = { shape: packed.shape, values: floats(packed) };
  return found;
}

// Return kernel `number` of a stage: {values, height, width, planes}.
export function kernelOf(weights, stage, number) {
  const { shape, values } = weights[stage === 0 ? "conv" : stage === 5 ? "readout" : `depthwise${stage}`];
  const [height, width] = shape.slice(-2);
  const planes = stage === 0 ? 3 : 1;
  const n = planes * height * width;
  return { values: values.subarray(number * n, (number + 1) * n), height, width, planes };
}

// Draw a kernel on a canvas.
export function drawKernel(canvas, weights, stage, number, limit = null) {
  const kernel = kernelOf(weights, stage, number);
  const most = limit ?? largest(kernel.values);
  if (kernel.planes === 3) paintColours(canvas, kernel.values, kernel.height, most);
  else paint(canvas, kernel.values, kernel.height, kernel.width, most);
}

export const key = (stage, number) => `${stage}.${number}`;

// Return the drawing, with methods to mark what is chosen, taken out, and what filters do.
export function circuitView({ weights, words, counts, onChoose, onToggle, onStage }) {
  const tiles = new Map();
  const lines = svg("svg", { class: "links", "aria-hidden": "true" });
  const columns = counts.map((count, stage) => {
    const made = Array.from({ length: count }, (_, n) => {
      const canvas = h("canvas", { class: stage === 5 ? "readout" : "kernel" });
      drawKernel(canvas, weights, stage, n);
      const bar = h("span", { class: "effect" });
      const tile = h("button", {
        type: "button", class: "filter", tabindex: stage === 0 && n === 0 ? 0 : -1, "data-filter": key(stage, n),
        "aria-label": `${STAGES[stage]} filter ${n}${words[stage] ? `, ${words[stage][n]}` : ""}`, "aria-pressed": "false",
        title: `${STAGES[stage]}, filter ${n}${words[stage] ? `\n${words[stage][n]}` : ""}`,
        onclick: () => onChoose(stage, n), ondblclick: () => onToggle(stage, n),
      }, canvas, bar);
      tiles.set(key(stage, n), { tile, bar });
      return tile;
    });
    const wide = stage === 5 ? "maps5" : count > 8 ? "many" : "few";
    return h("section", { class: `stage ${wide}`, "aria-label": `${STAGES[stage]}, ${count} filters` },
      h("h3", {}, STAGES[stage]), h("p", { class: "quiet" }, `${count} ${KINDS[stage]}`),
      h("div", { class: "kernels" }, made),
      h("button", { type: "button", class: "small", onclick: () => onStage(stage) }, "all out"));
  });
  const board = h("div", { class: "circuit" }, lines, columns);
  board.addEventListener("keydown", (event) => {
    const now = document.activeElement && document.activeElement.dataset.filter;
    if (!now) return;
    if (event.key === "a" || event.key === "Delete") {
      event.preventDefault();
      onToggle(...now.split(".").map(Number));
      return;
    }
    const next = neighbour(now, event.key);
    if (!next) return;
    event.preventDefault();
    tiles.get(now).tile.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  let selected = null;
  new ResizeObserver(() => link()).observe(board);

  // Return the tile that an arrow key leads to: the nearest one in its direction.
  function neighbour(now, arrow) {
    const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[arrow];
    if (!way) return null;
    const from = centre(tiles.get(now).tile);
    let best = null, least = Infinity;
    for (const { tile } of tiles.values()) {
      const to = centre(tile);
      const ahead = (to.x - from.x) * way[0] + (to.y - from.y) * way[1];
      const aside = Math.abs((to.x - from.x) * way[1]) + Math.abs((to.y - from.y) * way[0]);
      if (ahead > 4 && ahead + 3 * aside < least) [best, least] = [tile, ahead + 3 * aside];
    }
    return best;
  }

  function centre(tile) {
    const [box, all] = [tile.getBoundingClientRect(), board.getBoundingClientRect()];
    return { x: box.left - all.left + box.width / 2, y: box.top - all.top + box.height / 2, half: box.width / 2 };
  }

  // Draw the strongest weights between the chosen filter and its neighbours.
  function link() {
    clear(lines);
    if (!selected) return;
    const [stage, n] = selected;
    const drawn = [];
    if (stage === 0) drawn.push([0, n, 1, n, 1]);
    if (stage === 1) drawn.push([0, n, 1, n, 1]);
    if (stage > 1) drawn.push(...strongest(stage - 1, (weight, row, column) => row === n && [stage - 1, column, stage, n, weight]));
    if (stage > 0 && stage < 5) drawn.push(...strongest(stage, (weight, row, column) => column === n && [stage, n, stage + 1, row, weight]));
    for (const [s1, n1, s2, n2, share] of drawn) {
      const [a, b] = [centre(tiles.get(key(s1, n1)).tile), centre(tiles.get(key(s2, n2)).tile)];
      const [x1, x2] = [a.x + a.half, b.x - b.half];
      const bend = (x2 - x1) / 2;
      lines.append(svg("path", {
        d: `M${x1},${a.y} C${x1 + bend},${a.y} ${x2 - bend},${b.y} ${x2},${b.y}`, fill: "none",
        stroke: share < 0 ? INHIBITS : EXCITES, "stroke-width": (0.6 + 2.8 * Math.abs(share)).toFixed(2), "stroke-opacity": 0.75,
      }));
    }
  }

  // Return the strongest links of a layer's mixing weights that `pick` takes, as shares of the strongest.
  function strongest(layer, pick) {
    const { shape: [rows, columnsOf], values } = weights[`pointwise${layer}`];
    const found = [];
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columnsOf; column++) {
        const taken = pick(values[row * columnsOf + column], row, column);
        if (taken) found.push(taken);
      }
    }
    found.sort((a, b) => Math.abs(b[4]) - Math.abs(a[4]));
    const most = found.length ? Math.abs(found[0][4]) || 1 : 1;
    return found.slice(0, N_LINKS).map((one) => [...one.slice(0, 4), one[4] / most]);
  }

  return {
    element: board,
    choose(stage, n) {
      selected = [stage, n];
      for (const [name, { tile }] of tiles) {
        tile.setAttribute("aria-pressed", String(name === key(stage, n)));
        tile.tabIndex = name === key(stage, n) ? 0 : -1;
      }
      link();
    },
    takeOut(without) {
      for (const [name, { tile }] of tiles) tile.classList.toggle("out", without.has(name));
    },
    // Show what each filter does: response with it minus response without it.
    effects(values) {
      const most = largest(values) || 1;
      [...tiles.values()].forEach(({ bar }, k) => {
        bar.style.width = `${(100 * Math.abs(values[k])) / most}%`;
        bar.style.background = values[k] < 0 ? INHIBITS : EXCITES;
        bar.title = `adds ${number(values[k], 3)} to the response`;
      });
    },
  };
}
