// Every neuron as a tile: sort, filter, choose two to compare.

import { clear, h, number, python, settled, whole } from "./dom.js";

const SORTS = {
  "as they come": (row) => row.place,
  "r², best first": (row) => -(row.r2 && row.r2.value !== null ? row.r2.value : -Infinity),
  "parameters, fewest first": (row) => row.parameters ?? Infinity,
  "filters, fewest first": (row) => row.n_filters ?? Infinity,
  "receptive field, smallest first": (row) => row.field.diameter_px ?? Infinity,
  "strongest response first": (row) => -(row.responses ? row.responses.synthesized_max : -Infinity),
  "family": (row) => row.family || "~",
};
const SHOWN = { synthesized_max: "synthesized", natural_max: "NATURAL", natural_min: "least, NATURAL", synthesized_min: "least, synthesized" };
const DOTS = "dot detector";

export async function populationPage(main, backend) {
  let told = await backend.population();
  document.title = `${told.title} · pocketcortex`;
  const chosen = new Set();
  const state = readState();
  const grid = h("ul", { class: "tiles", "aria-label": "Neurons" });
  const count = h("p", { class: "count", role: "status" });
  const tray = h("div", { class: "tray", hidden: true });
  const field = (label, control) => h("label", {}, h("span", {}, label), control);
  const select = (key, options) => h("select", {
    id: key, onchange: (event) => change(key, event.target.value),
  }, options.map(([value, text]) => h("option", { value, selected: state[key] === value }, text)));
  const bound = (key, step) => h("input", {
    id: key, type: "number", min: 0, step, value: state[key], placeholder: "any",
    oninput: settled((event) => change(key, event.target.value), 120),
  });
  const search = h("input", {
    id: "search", type: "search", value: state.search, placeholder: "name  ( / )",
    oninput: settled((event) => change("search", event.target.value), 120),
  });
  const sessions = [...new Set(told.neurons.map((row) => row.session).filter(Boolean))];
  const hasR2 = told.known.r2 + told.known.r2_waiting > 0;
  const known = h("p", { class: "quiet", id: "known" });
  const toolbar = h("form", { class: "toolbar", onsubmit: (event) => event.preventDefault() },
    field("Find", search),
    field("Sort by", select("sort", Object.keys(SORTS).filter((name) => available(name, hasR2, told)).map((name) => [name, name]))),
    field("Tiles show", select("show", Object.entries(SHOWN).filter(([kind]) => !backend.static || told.neurons.some((row) => row.pictures && row.pictures[kind])).map(([kind, text]) => [kind, text.replace("NATURAL", told.natural_name)]))),
    sessions.length > 1 ? field("Session", select("session", [["", "all"], ...sessions.map((one) => [one, one])])) : null,
    told.families.length ? field("Family", select("family", [["", "all"], ...told.families.map((one) => [one, one])])) : null,
    hasR2 ? field("r² at least", bound("r2", 0.05)) : null,
    field("Parameters up to", bound("parameters", 1000)),
    field("Field up to (px)", bound("diameter", 5)),
    h("button", { type: "reset", class: "small", onclick: reset }, "Reset"),
  );
  clear(main,
    h("div", { class: "heading" }, h("h1", {}, told.title), count),
    told.n_neurons ? toolbar : h("p", { class: "quiet" }, "There are no neurons here. ", h("a", { href: "zoo" }, "See the zoo.")), told.n_neurons ? known : null, grid, tray, python(told.python),
    h("p", { class: "quiet" }, h("a", { href: backend.address("population.json") }, "this page as JSON")),
  );
  draw();
  addEventListener("keydown", keys);
  if (!backend.static) follow();

  function change(key, value) {
    state[key] = value;
    history.replaceState(null, "", `#${new URLSearchParams(Object.entries(state).filter(([k, v]) => v !== DEFAULTS[k]))}`);
    draw();
  }

  function reset() {
    Object.assign(state, DEFAULTS);
    history.replaceState(null, "", location.pathname + location.search);
    draw();
  }

  function shownRows() {
    const at = (text) => (text === "" ? null : Number(text));
    const [r2, parameters, diameter] = [at(state.r2), at(state.parameters), at(state.diameter)];
    const by = SORTS[state.sort];
    return told.neurons
      .map((row, place) => ({ ...row, place }))
      .filter((row) =>
        (!state.search || `${row.name} ${row.label}`.toLowerCase().includes(state.search.toLowerCase()))
        && (!state.session || row.session === state.session)
        && (!state.family || (state.family === DOTS ? row.dot_detector : row.family === state.family))
        && (r2 === null || (row.r2 && row.r2.value !== null && row.r2.value >= r2))
        && (parameters === null || (row.parameters !== null && row.parameters <= parameters))
        && (diameter === null || (row.field.diameter_px !== null && row.field.diameter_px <= diameter)))
      .sort((a, b) => (by(a) < by(b) ? -1 : by(a) > by(b) ? 1 : a.place - b.place));
  }

  function draw() {
    const rows = shownRows();
    const waiting = told.n_waiting ? ` · ${told.n_waiting} still being looked at` : "";
    count.textContent = `${rows.length === told.n_neurons ? "" : `${rows.length} of `}${told.n_neurons} neurons${waiting}`;
    known.textContent = underTiles();
    const focused = document.activeElement && document.activeElement.dataset.name;
    clear(grid, rows.map(tile));
    if (focused) grid.querySelector(`a[data-name="${CSS.escape(focused)}"]`)?.focus();
  }

  // Say what stands under the tiles, and of how many neurons it is known.
  function underTiles() {
    const { r2, r2_waiting: waiting, r2_on: on, family, family_by: by } = told.known;
    const of = (n) => (n === told.n_neurons ? "" : ` of ${n} of ${told.n_neurons}`);
    const parts = [
      r2 ? `r²${of(r2)} (${on.join("; ")})${waiting ? `, ${waiting} to come` : ""}` : hasR2 ? `r² (${waiting} to come)` : null,
      "thousands of parameters (k)",
      family ? `family of preferred stimuli${of(family)}${by ? ` (by ${by})` : ""}` : null,
    ];
    const unknown = [hasR2 ? null : "r²", family ? null : "families"].filter(Boolean).join(" and ");
    return `Under each tile: ${parts.filter(Boolean).join(" · ")}.${unknown ? ` Not known of these: ${unknown}.` : ""}`;
  }

  function tile(row) {
    const picture = row.pictures
      ? h("img", { src: backend.address(row.pictures[state.show]), alt: "", loading: "lazy", width: 112, height: 112 })
      : h("span", { class: "blank", title: told.failures[row.name] || "still being looked at" }, told.failures[row.name] ? "!" : "…");
    const facts = [
      row.r2 && row.r2.value !== null ? `r² ${number(row.r2.value)}${row.r2.remark ? " †" : ""}` : null,
      row.parameters === null ? null : `${number(row.parameters / 1000, 1)}k`,
      row.dot_detector ? DOTS : row.family && row.family !== "none" ? row.family : null,
    ].filter(Boolean).join(" · ");
    return h("li", { class: chosen.has(row.name) ? "chosen" : "" },
      h("a", { href: backend.page(row.name), "data-name": row.name, title: describe(row) }, picture,
        h("span", { class: "name" }, row.label), h("span", { class: "facts" }, facts || " ")),
      h("label", { class: "pick" },
        h("input", { type: "checkbox", checked: chosen.has(row.name), "aria-label": `compare ${row.label}`, onchange: () => pick(row.name) })));
  }

  function describe(row) {
    return [row.name, row.r2 && row.r2.value !== null ? `r² ${number(row.r2.value)}${row.r2.low === null ? "" : ` (${number(row.r2.low)} to ${number(row.r2.high)})`}, ${row.r2.on}${row.r2.remark ? `; † means little: ${row.r2.remark}` : ""}` : null,
      row.parameters === null ? null : `${whole(row.parameters)} parameters, ${row.n_filters} filters`,
      row.field.diameter_px ? `receptive field ${number(row.field.diameter_px, 0)} px across` : null].filter(Boolean).join("\n");
  }

  function pick(name) {
    if (!chosen.delete(name)) chosen.add(name);
    while (chosen.size > 2) chosen.delete(chosen.values().next().value);
    draw();
    const names = [...chosen];
    const label = (one) => told.neurons.find((row) => row.name === one).label;
    tray.hidden = !names.length;
    clear(tray, h("span", {}, names.map(label).join("  and  ")),
      names.length === 2
        ? h("a", { class: "button", id: "compare", href: backend.comparePage(...names) }, "Compare")
        : h("span", { class: "quiet" }, "choose one more to compare"),
      h("button", { type: "button", class: "small", onclick: () => { chosen.clear(); draw(); tray.hidden = true; } }, "Clear"));
  }

  function keys(event) {
    if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) {
      event.preventDefault();
      search.focus();
      return;
    }
    const tiles = [...grid.querySelectorAll("a")];
    const k = tiles.indexOf(document.activeElement);
    if (k < 0) return;
    const top = tiles[0].offsetTop;
    const across = tiles.findIndex((one) => one.offsetTop > top) > 0 ? tiles.findIndex((one) => one.offsetTop > top) : tiles.length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
    if (step && tiles[k + step]) {
      event.preventDefault();
      tiles[k + step].focus();
    } else if (event.key === "c") pick(tiles[k].dataset.name);
  }

  async function follow() {
    while (told.n_waiting) {
      await new Promise((done) => setTimeout(done, 2000));
      if (document.hidden) continue;
      try {
        told = await backend.population();
        draw();
      } catch { return; }
    }
  }
}

const DEFAULTS = { search: "", sort: "as they come", show: "synthesized_max", session: "", family: "", r2: "", parameters: "", diameter: "" };

function readState() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const state = { ...DEFAULTS };
  for (const key of Object.keys(state)) if (key in given) state[key] = given[key];
  if (!(state.sort in SORTS)) state.sort = DEFAULTS.sort;
  if (!(state.show in SHOWN)) state.show = DEFAULTS.show;
  return state;
}

function available(name, hasR2, told) {
  return (name !== "r², best first" || hasR2) && (name !== "family" || told.families.length > 0);
}
