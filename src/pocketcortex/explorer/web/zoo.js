// The zoo: networks ranked with their intervals, and their scores layer by layer.

import { lineChart } from "./charts.js";
import { clear, h, number, python, svg, whole } from "./dom.js";

// Okabe and Ito's colours: apart for colour-blind readers.
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#000000"];
const GREY = "#b5b5b5";
const ANALYSES = { regression: "regression", rsa: "RSA", rsr: "representational regression" };

export async function zooPage(main, backend) {
  document.title = "Zoo · pocketcortex";
  const { zoo } = await backend.zoo();
  if (!zoo) {
    clear(main, h("h1", {}, "Zoo"), h("p", { class: "quiet" },
      "There are no scores of networks here. Give a folder that pocketcortex zoo score and zoo rank filled, or name it with --zoo."));
    return;
  }
  const place = Math.max(0, zoo.boards.findIndex((one) => `${one.area}|${one.analysis}` === decodeURIComponent(location.hash.slice(1))));
  const shown = h("div", {});
  const picked = new Set();
  const select = h("select", { id: "board", onchange: () => draw(Number(select.value), true) },
    zoo.boards.map((one, k) => h("option", { value: k, selected: k === place }, `${one.area} · ${ANALYSES[one.analysis] || one.analysis}`)));
  const code = python("", "Python for this ranking and these curves");
  clear(main, h("div", { class: "heading" }, h("h1", {}, zoo.title), h("p", { class: "count" }, areas(new Set(zoo.boards.map((one) => one.area)).size))),
    h("div", { class: "toolbar" }, h("label", {}, h("span", {}, "Area and analysis"), select)), shown, code,
    h("p", { class: "quiet" }, h("a", { href: backend.address("zoo.json") }, "this page as JSON")));
  draw(place, true);

  function draw(k, anew) {
    const board = zoo.boards[k];
    if (anew) {
      picked.clear();
      board.rows.slice(0, 4).forEach((row) => picked.add(row.model));
      history.replaceState(null, "", `#${encodeURIComponent(`${board.area}|${board.analysis}`)}`);
    }
    code.show(board.python);
    const colours = new Map([...picked].map((name, n) => [name, COLOURS[n % COLOURS.length]]));
    const ends = board.rows.flatMap((row) => [row.value, row.ci_low, row.ci_high]).filter((value) => value !== null).concat(0);
    const ceilings = board.rows.map((row) => row.ceiling).filter((value) => value !== null);
    const span = [Math.min(...ends), Math.max(...ends)];
    clear(shown,
      ceilings.length ? h("p", { class: "quiet", id: "ceiling" }, `Noise ceiling ${number(ceilings[0], 3)}: no network can be expected above it.`) : h("p", { class: "quiet", id: "ceiling" }, "The noise ceiling of this area is not known."),
      h("div", { class: "across" }, h("table", { class: "ranking" },
        h("thead", {}, h("tr", {}, ["", "", "network", board.metric, `95 % interval, ${number(span[0])} to ${number(span[1])}`, "", "kind", "parameters", "depth"].map((text) => h("th", { scope: "col", title: text === "depth" ? "of the best layer, 0 the first and 1 the last" : null }, text)))),
        h("tbody", {}, board.rows.map((row) => h("tr", {},
          h("td", {}, h("input", { type: "checkbox", checked: picked.has(row.model), "aria-label": `draw the layers of ${row.model}`, onchange: () => { if (!picked.delete(row.model)) picked.add(row.model); draw(k, false); } })),
          h("td", { class: "number", title: row.as_good_as_best ? "not told apart from the best" : null }, row.rank ?? "–", row.as_good_as_best ? " =" : null),
          h("th", { scope: "row" }, swatch(colours.get(row.model)), row.model, row.reason ? h("span", { class: "reason quiet" }, row.reason) : null),
          h("td", { class: "number" }, number(row.value, 3)),
          h("td", {}, interval(row, span, colours.get(row.model) || "#555")),
          h("td", { class: "number quiet" }, row.ci_low === null ? "" : `${number(row.ci_low)} to ${number(row.ci_high)}`),
          h("td", { class: "quiet" }, row.kind), h("td", { class: "number" }, whole(row.n_parameters)), h("td", { class: "number" }, number(row.depth))))))),
      board.rows.some((row) => row.as_good_as_best) ? h("p", { class: "quiet" }, "=: not told apart from the best, corrected for all pairs of the area.") : null,
      h("h2", {}, "Layer by layer"),
      board.curves.length ? layers(board, colours) : h("p", { class: "quiet" }, "This analysis has no score a layer."));
  }
}

function areas(n) {
  return `${n} ${n === 1 ? "area" : "areas"}`;
}

function swatch(colour) {
  const made = h("span", { class: "swatch", "aria-hidden": "true" });
  made.style.background = colour || "transparent";
  return made;
}

function interval(row, [low, high], colour) {
  const at = (value) => (220 * (value - low)) / (high - low || 1);
  const drawn = svg("svg", { viewBox: "-4 0 228 14", class: "interval", role: "img", "aria-label": `${number(row.value, 3)}, interval ${number(row.ci_low, 3)} to ${number(row.ci_high, 3)}` },
    svg("line", { x1: at(0), x2: at(0), y1: 0, y2: 14, class: "axis" }));
  if (row.ci_low !== null) drawn.append(svg("line", { x1: at(row.ci_low), x2: at(row.ci_high), y1: 7, y2: 7, stroke: colour, "stroke-width": 2 }));
  if (row.value !== null) drawn.append(svg("circle", { cx: at(row.value), cy: 7, r: 3.5, fill: colour }));
  return drawn;
}

function layers(board, colours) {
  const drawn = board.curves.map((curve) => ({ ...curve, colour: colours.get(curve.model) || GREY }))
    .sort((a, b) => (a.colour === GREY ? 0 : 1) - (b.colour === GREY ? 0 : 1));
  const chart = lineChart({
    title: `${board.metric} by depth`, xLabel: "depth (0: first layer, 1: last)", x: [0, 1], wide: true,
    lines: drawn.map((curve) => ({ name: curve.model, x: curve.depth, y: curve.value, colour: curve.colour, titles: curve.layers })),
  });
  chart.classList.add("layercurves");
  return chart;
}
