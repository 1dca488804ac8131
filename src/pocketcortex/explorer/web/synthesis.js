// An image synthesized while one looks, with seed and stop.

import { h, number, problem, clear, python, svg } from "./dom.js";

export function synthesisPanel(backend, name, told, onDone) {
  const seed = h("input", { id: "seed", type: "number", min: 0, max: 2147483647, value: 0 });
  const steps = h("input", { id: "steps", type: "number", min: 1, max: 2000, value: 300 });
  const direction = h("select", { id: "direction" }, h("option", { value: "max" }, "drive it"), h("option", { value: "min" }, "silence it"));
  const start = h("button", { type: "submit", id: "start" }, "Start");
  const stop = h("button", { type: "button", id: "stop", disabled: true, onclick: () => running && running.stop() }, "Stop");
  const picture = h("img", { class: "live", alt: "the image as it is" });
  const progress = h("p", { class: "quiet", id: "progress", role: "status" });
  const trail = svg("polyline", { fill: "none", class: "line", stroke: "#222" });
  const plot = svg("svg", { viewBox: "0 0 200 50", class: "trail", preserveAspectRatio: "none", "aria-hidden": "true" }, trail);
  const code = python(filled(), "Python for this image");
  const live = h("div", { class: "row", hidden: true }, picture, plot);
  let running = null;
  for (const one of [seed, steps, direction]) one.addEventListener("input", () => code.show(filled()));

  function filled() {
    return told.python.synthesis.replace("STEPS", steps.value).replace("SEED", seed.value).replace("MINIMIZE", direction.value === "min" ? "True" : "False");
  }

  async function run(event) {
    event.preventDefault();
    const asked = { seed: Number(seed.value), n_steps: Number(steps.value), minimize: direction.value === "min" };
    const responses = [];
    let last = null, began = performance.now();
    [start.disabled, stop.disabled, live.hidden] = [true, false, false];
    Object.assign(progress.dataset, { step: 0, best: "", done: "" });
    running = backend.synthesize(name, asked, (line) => {
      responses.push(line.response);
      if (line.png) {
        last = `data:image/png;base64,${line.png}`;
        picture.src = last;
      }
      const rate = responses.length / ((performance.now() - began) / 1000);
      progress.textContent = `step ${line.step} of ${asked.n_steps} · response ${number(line.response)} · best ${number(line.best)} · ${rate.toFixed(0)} steps/s`;
      Object.assign(progress.dataset, { step: line.step, best: line.best, done: line.done ? "yes" : "" });
      draw(responses, asked.n_steps);
      if (line.done) onDone(last, line.best, "synthesized here");
    });
    try {
      await running.done;
      if (last && !progress.dataset.done) onDone(last, null, `synthesis stopped at step ${responses.length - 1}`);
    } catch (error) { clear(progress, problem(error)); }
    [start.disabled, stop.disabled, running] = [false, true, null];
  }

  function draw(responses, n) {
    const [low, high] = [Math.min(...responses), Math.max(...responses)];
    trail.setAttribute("points", responses.map((y, k) => `${((200 * k) / n).toFixed(1)},${(48 - (46 * (y - low)) / (high - low || 1)).toFixed(1)}`).join(" "));
  }

  const element = h("form", { class: "synthesis", onsubmit: run }, h("h3", {}, "Synthesize"),
    h("div", { class: "row" }, h("label", {}, "seed ", seed), h("label", {}, "steps ", steps), direction, start, stop),
    live, progress, code);
  return { element };
}
