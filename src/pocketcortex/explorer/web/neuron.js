// One neuron: its images, its circuit with filters to take out, tuning curves, traces, synthesis.

import { CHANGED, INK, diverging, mapOf, paint } from "./colour.js";
import { heatMap, lineChart } from "./charts.js";
import { STAGES, circuitView, drawKernel, key, unpack } from "./circuit.js";
import { synthesisPanel } from "./synthesis.js";
import { clear, h, number, problem, python, settled, whole } from "./dom.js";

const OWN = { synthesized_max: "most, synthesized", natural_max: "most, NATURAL", natural_min: "least, NATURAL", synthesized_min: "least, synthesized" };
const CHANGED_NAMES = { base: "unchanged, NATURAL", raised: "changed to raise", lowered: "changed to lower" };

export async function neuronPage(main, backend, name = nameOf()) {
  const told = await backend.neuron(name);
  document.title = `${told.label} · pocketcortex`;
  const weights = unpack(told.weights);
  const counts = told.filters;
  const without = new Set(fromAddress("without").split(",").filter((one) => /^\d+\.\d+$/.test(one)));
  let image = null, chosen = null, traced = null, ticket = 0;

  const shown = h("canvas", { class: "shown", role: "img" });
  const response = h("p", { class: "response", role: "status", "aria-live": "polite" });
  const gallery = h("div", { class: "gallery" });
  const fooled = h("div", { class: "gallery" });
  const saliencyBox = h("input", { type: "checkbox", id: "saliency", onchange: () => drawImage() });
  const curves = h("div", { class: "charts" }, h("p", { class: "quiet" }, "measuring …"));
  const inside = h("div", { class: "inside" }, h("p", { class: "quiet" }, "Click a filter to see what it makes of the image; double-click, or press a, to take it out."));
  const layers = h("div", { class: "layers" });
  const outList = h("span", { class: "outlist" });
  const code = python("", "Python for this response");
  const circuit = circuitView({
    weights, counts, words: told.words,
    onChoose: (stage, n) => { chosen = [stage, n]; circuit.choose(stage, n); drawInside(); },
    onToggle: toggle,
    onStage: (stage) => {
      const all = Array.from({ length: counts[stage] }, (_, n) => key(stage, n));
      const back = all.every((one) => without.has(one));
      for (const one of all) back ? without.delete(one) : without.add(one);
      changed();
    },
  });
  const picker = h("input", { type: "file", id: "upload", accept: "image/*", class: "hidden", onchange: () => take(picker.files[0]) });
  const drop = h("label", { class: "drop", for: "upload", tabindex: 0, onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") picker.click(); } },
    "Drop in your own image, or choose a file", picker);
  const uploadError = h("div", {});
  dropping(main, drop, take);
  const synthesis = synthesisPanel(backend, name, told, (url, value, label) => show({ label, url, ask: { png: url.split(",")[1] }, value }));

  clear(main,
    h("div", { class: "heading" }, h("h1", {}, told.label), facts(told, counts), steps(told, backend)),
    h("div", { class: "two" },
      h("section", { class: "side" },
        h("div", { class: "seen" }, h("h2", {}, "Image"),
          h("div", { class: "stagebox" }, shown), response,
          h("label", { class: "tick" }, saliencyBox, " saliency (", h("span", {}, backend.static ? "gradient" : "smoothing a patch"), ")")),
        h("div", { class: "tools" }, gallery, drop, uploadError,
          h("h3", {}, "Adversarial images"), fooled, synthesis.element),
        h("div", { class: "codes" }, code,
          python(told.python.looks, "Python for these images"), python(told.python.saliency, "Python for saliency"),
          told.python.r2 ? python(told.python.r2, "Python for r²") : null)),
      h("section", { class: "wide" },
        h("div", { class: "row" }, h("h2", {}, "Circuit"), h("p", { class: "key" },
          h("span", { class: "red" }, "■ excitatory"), h("span", { class: "blue" }, "■ inhibitory"),
          h("span", {}, "bar: what a filter adds to this response")), outList),
        circuit.element, inside,
        h("h2", {}, "Tuning"), curves,
        h("h2", {}, "Layer by layer"), layers,
        h("p", { class: "quiet" }, h("a", { href: backend.address(`neuron/${encodeURIComponent(name)}.json`) }, "this page as JSON")))));
  circuit.takeOut(without);
  addEventListener("keydown", (event) => {
    if (/INPUT|SELECT|TEXTAREA/.test(event.target.tagName) || event.target.dataset.filter) return;
    const to = { "[": told.before, "]": told.after }[event.key];
    if (to) location.href = backend.page(to);
  });
  drawGallery(told);
  const first = fromAddress("picture");
  drawFooled();
  if (told.pictures) show(stored(first in OWN ? first : "synthesized_max", told));
  else await waitForLooks().catch((error) => clear(gallery, problem(error)));
  measure();

  function stored(kind, row) {
    return { label: OWN[kind].replace("NATURAL", row.natural_name), url: row.pictures[kind], ask: { picture: kind }, value: null, kind };
  }

  async function waitForLooks() {
    clear(gallery, h("p", { class: "quiet" }, "preferred images are being made …"));
    for (;;) {
      await new Promise((done) => setTimeout(done, 700));
      const row = await backend.looks(name);
      if (row.failure) throw new Error(row.failure);
      if (!row.pictures) continue;
      Object.assign(told, row);
      drawGallery(told);
      if (!image) show(stored("synthesized_max", told));
      return;
    }
  }

  function thumbnail(picture, caption, value) {
    return h("button", { type: "button", class: "thumb", "data-picture": picture.kind, onclick: () => show(picture), title: caption },
      h("img", { src: backend.address(picture.url), alt: caption, width: 64, height: 64 }),
      h("span", {}, caption), h("span", { class: "number" }, number(value)));
  }

  function drawGallery(row) {
    if (!row.pictures) return;
    clear(gallery, Object.keys(OWN).map((kind) => thumbnail(stored(kind, row), stored(kind, row).label, row.responses[kind])));
  }

  async function drawFooled() {
    clear(fooled, h("button", { type: "button", class: "small", onclick: load }, "Show"));
    if (backend.static) load();
    async function load() {
      clear(fooled, h("p", { class: "quiet" }, "searching …"));
      try {
        const found = await backend.adversarial(name);
        clear(fooled, Object.entries(CHANGED_NAMES).map(([kind, text]) => {
          const label = text.replace("NATURAL", found.natural_name);
          return thumbnail({ label, url: found.pictures[kind], ask: { picture: kind }, kind }, label, found.responses[kind]);
        }));
        fooled.append(h("p", { class: "quiet" }, `changed by ${found.budget} of 255 levels (root mean square) at most`), python(found.python));
      } catch (error) { clear(fooled, problem(error)); }
    }
  }

  async function take(file) {
    if (!file) return;
    clear(uploadError);
    try {
      const found = await backend.upload(name, file);
      show({ label: file.name, url: found.url, ask: { png: found.url.split(",")[1] }, value: found.response });
    } catch (error) { clear(uploadError, problem(error)); }
    picker.value = "";
  }

  function toggle(stage, n) {
    if (!without.delete(key(stage, n))) without.add(key(stage, n));
    changed();
  }

  function pairs() {
    return [...without].map((one) => one.split(".").map(Number));
  }

  function changed() {
    circuit.takeOut(without);
    address();
    refresh();
    moveCurves();
  }

  function show(picture) {
    image = picture;
    for (const one of main.querySelectorAll(".thumb")) one.classList.toggle("current", one.dataset.picture === picture.kind);
    address();
    refresh();
    drawImage();
  }

  function address() {
    const kept = new URLSearchParams();
    if (without.size) kept.set("without", [...without].join(","));
    if (image && image.kind in OWN && image.kind !== "synthesized_max") kept.set("picture", image.kind);
    history.replaceState(null, "", location.pathname + location.search + (kept.size ? `#${kept}` : ""));
  }

  // Ask for everything about the image and the filters left; answers to older questions are dropped.
  async function refresh() {
    if (!image) return;
    const mine = ++ticket;
    clear(outList, without.size ? [h("span", {}, `${without.size} of ${counts.reduce((a, b) => a + b)} filters taken out `),
      h("button", { type: "button", class: "small", id: "restore", onclick: () => { without.clear(); changed(); } }, "Put back")] : null);
    const template = told.python[without.size ? "ablation" : "response"];
    code.show(template.replace("FILTERS", `[${pairs().map(([s, n]) => `(${s}, ${n})`).join(", ")}]`));
    const asked = { ...image.ask, without: pairs() };
    try {
      const answer = await backend.respond(name, asked);
      if (mine !== ticket) return;
      clear(response, h("span", { class: "label" }, image.label), h("strong", { id: "intact" }, number(answer.intact, 3)),
        without.size ? [" → ", h("strong", { class: "changed", id: "ablated" }, number(answer.response, 3)), h("span", { class: "quiet" }, " without them")] : null);
      response.dataset.intact = answer.intact;
      response.dataset.response = answer.response;
      traced = await backend.trace(name, asked);
      if (mine !== ticket) return;
      drawInside();
      drawLayers();
      const found = await backend.effects(name, asked);
      if (mine === ticket) circuit.effects(found.effects);
    } catch (error) {
      if (mine === ticket) clear(response, problem(error));
    }
  }

  async function drawImage() {
    if (!image) return;
    const mine = image;
    const picture = await loaded(backend.address(mine.url));
    if (mine !== image) return;
    shown.width = picture.width;
    shown.height = picture.height;
    shown.setAttribute("aria-label", `image: ${mine.label}`);
    const context = shown.getContext("2d");
    context.drawImage(picture, 0, 0);
    if (!saliencyBox.checked) return;
    try {
      const found = await backend.saliency(name, mine.ask);
      if (mine !== image || !saliencyBox.checked) return;
      context.globalAlpha = 0.25;
      context.fillStyle = "#fff";
      context.fillRect(0, 0, shown.width, shown.height);
      drawSaliency(context, found);
    } catch (error) { clear(uploadError, problem(error)); }
  }

  // Draw what the chosen filter makes of the image; of one taken out, what it would make.
  async function drawInside() {
    if (!chosen || !traced) return;
    const [stage, n] = chosen, mine = traced, own = key(stage, n);
    const out = without.has(own);
    let { maps, by_filter: sums } = traced;
    if (out) {
      try {
        const others = pairs().filter(([s, k]) => s !== stage || k !== n);
        ({ maps, by_filter: sums } = await backend.trace(name, { ...image.ask, without: others }));
      } catch (error) { clear(inside, problem(error)); return; }
      if (mine !== traced || !without.has(own) || key(...chosen) !== own) return;
    }
    const kernel = h("canvas", { class: "bigkernel" });
    drawKernel(kernel, weights, stage, n);
    const figures = stage === 0
      ? [step(h("img", { src: backend.address(image.url), alt: "image", class: "map" }), "image"), ["×", kernel, "kernel"], ["=", mapOf(maps.filtered0, n), "convolved"], ["→", mapOf(maps.maps0, n), "plus offset, rectified"]]
      : stage === 5
        ? [step(mapOf(maps.maps4, n), "map of layer 4"), ["×", kernel, "readout"], ["=", mapOf(maps.products, n), `sums to ${number(sums[n], 3)}`]]
        : [step(mapOf(maps[`maps${stage - 1}`], n), `map ${n} of layer ${stage - 1}`), ["∗", kernel, "kernel"], ["=", mapOf(maps[`filtered${stage}`], n), "filtered, to be mixed"]];
    const text = told.words[stage] ? told.words[stage][n] : null;
    clear(inside,
      h("div", { class: "row" }, h("h3", {}, `${STAGES[stage]} · filter ${n}`), text ? h("span", { class: "quiet" }, text) : null,
        h("button", { type: "button", id: "takeout", class: out ? "on" : "", "aria-pressed": String(out), onclick: () => toggle(stage, n) }, out ? "Put it back" : "Take it out"),
        out ? h("span", { class: "changed", id: "isout" }, "Taken out: nothing of this reaches the response. Drawn as if it were put back.") : null),
      h("div", { class: out ? "equation out" : "equation" }, figures.map((one) => (Array.isArray(one) ? [h("span", { class: "sign" }, one[0]), step(one[1], one[2])] : one))),
      python(told.python.trace, "Python for these maps"));
  }

  function step(content, caption) {
    let made = content;
    if (!(content instanceof Element)) {
      made = h("canvas", { class: "map" });
      paint(made, content.values, content.height, content.width, content.limit || 1);
    }
    return h("figure", {}, made, h("figcaption", {}, caption));
  }

  function drawLayers() {
    const rows = [0, 1, 2, 3, 4].map((i) => [`after layer ${i}`, traced.maps[`maps${i}`], `maps${i}`]);
    rows.push(["times readout", traced.maps.products, "products"]);
    clear(layers, rows.map(([label, maps, which]) => h("div", { class: "layer" }, h("p", {}, label, h("span", { class: "quiet" }, ` ${maps.shape[0]} maps`)),
      h("div", { class: "maps" }, Array.from({ length: maps.shape[0] }, (_, n) => {
        const gone = (which === "products" && without.has(key(5, n))) || (which === "maps0" && without.has(key(0, n)));
        const canvas = h("canvas", { class: gone ? "map gone" : "map", title: `map ${n}${gone ? ": its filter is taken out" : which === "products" ? `: adds ${number(traced.by_filter[n], 3)}` : ""}` });
        const map = mapOf(maps, n);
        paint(canvas, map.values, map.height, map.width, map.limit || 1);
        return canvas;
      })))),
      h("p", { class: "sum" }, traced.by_filter.map((one) => number(one, 3)).join(" + ").replaceAll("+ −", "− "), ` ${traced.bias < 0 ? "−" : "+"} ${number(Math.abs(traced.bias), 3)} = `, h("strong", {}, number(traced.response, 3))),
    );
  }

  async function measure() {
    try {
      told.tuning = await backend.tuning(name);
      drawCurves(null);
      if (without.size) moveCurves();
    } catch (error) { clear(curves, problem(error)); }
  }

  async function moved() {
    if (!told.tuning) return;
    if (!without.size) return drawCurves(null);
    const now = [...without].join();
    curves.classList.add("waiting");
    const found = await backend.tuningWithout(name, pairs());
    if (now === [...without].join()) drawCurves(found.without);
  }
  function moveCurves() { later(); }
  const later = settled(() => moved().catch((error) => clear(curves, problem(error))), 60);

  function drawCurves(changedTo) {
    const tuning = told.tuning;
    curves.classList.remove("waiting");
    curves.dataset.without = changedTo ? [...without].join() : "";
    clear(curves,
      tuning.curves.map((curve) => {
        const lines = [{ name: "intact", y: tuning.intact[curve.name], colour: INK }];
        if (changedTo) lines.push({ name: "without them", y: changedTo[curve.name], colour: CHANGED });
        const chart = lineChart({
          title: curve.title, xLabel: curve.x_label, x: curve.x, lines, level: tuning.grey,
          colours: curve.name === "hue" ? tuning.hue_colours.map((one) => `rgb(${one.map(Math.round).join(",")})`) : null,
        });
        chart.dataset.curve = curve.name;
        chart.dataset.values = JSON.stringify(lines[lines.length - 1].y);
        return chart;
      }),
      heatMap({ title: "Where a small dot drives", rows: tuning.place, level: tuning.grey }),
      h("p", { class: "quiet" }, changedTo ? [h("span", { class: "changed" }, "— "), "without the filters taken out; "] : null, "dotted: plain grey. ",
        `Upwards: the model's response. Stimuli shown about (${number(tuning.centre_px[0], 0)}, ${number(tuning.centre_px[1], 0)}) px.`),
      python(tuning.python, "Python for these curves"));
  }
}

function nameOf() {
  if (document.documentElement.dataset.name) return document.documentElement.dataset.name;
  return decodeURIComponent(location.pathname.split("/").pop());
}

function fromAddress(what) {
  return new URLSearchParams(location.hash.slice(1)).get(what) || "";
}

function facts(told, counts) {
  const r2 = told.r2 && told.r2.value !== null
    ? `${told.r2.metric.replace("r2", "r²")} ${number(told.r2.value)}${told.r2.low === null ? "" : ` (${number(told.r2.low)} to ${number(told.r2.high)})`}, ${told.r2.n_stimuli} images (${told.r2.on})${told.r2.remark ? ` – means little: ${told.r2.remark}` : ""}` : null;
  const field = told.field.diameter_px ? `receptive field ${number(told.field.diameter_px, 0)} px across at (${number(told.field.x_px, 0)}, ${number(told.field.y_px, 0)})` : null;
  return h("p", { class: "facts" }, [r2, `${whole(told.parameters)} parameters`, `${counts.reduce((a, b) => a + b)} filters`, field, told.family && told.family !== "none" ? `prefers: ${told.family}` : null, told.dot_detector ? "dot detector" : null].filter(Boolean).join(" · "));
}

function steps(told, backend) {
  const link = (name, text, hint) => (name ? h("a", { href: backend.page(name), title: hint, rel: text === "←" ? "prev" : "next" }, text) : h("span", { class: "quiet" }, text));
  return h("p", { class: "steps" }, link(told.before, "←", "the neuron before  ( [ )"), link(told.after, "→", "the next neuron  ( ] )"));
}

function dropping(main, drop, take) {
  for (const kind of ["dragover", "dragleave", "drop"]) {
    main.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files[0]);
    });
  }
}

function loaded(url) {
  return new Promise((done, failed) => {
    const picture = new Image();
    picture.onload = () => done(picture);
    picture.onerror = () => failed(new Error("the picture cannot be shown"));
    picture.src = url;
  });
}

// Draw a map of changes over the image: blue where smoothing lowers the response's drive.
function drawSaliency(context, found) {
  const most = Math.max(...found.map.flat().map(Math.abs)) || 1;
  const colour = (value) => diverging(-value, most);
  context.globalAlpha = 0.6;
  const half = found.patch_px / 2;
  const step = found.corners.length > 1 ? found.corners[1][0][0] - found.corners[0][0][0] : found.patch_px;
  found.map.forEach((row, i) => row.forEach((value, j) => {
    const [top, left] = found.corners[i][j];
    context.fillStyle = `rgb(${colour(value).map(Math.round).join(",")})`;
    context.globalAlpha = 0.75 * Math.min(1, Math.abs(value) / most);
    context.fillRect(left + half - step / 2, top + half - step / 2, step, step);
  }));
  context.globalAlpha = 1;
}
