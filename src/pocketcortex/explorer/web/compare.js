// Two neurons side by side: images, what each answers to the other's, and tuning curves on one axis.

import { lineChart } from "./charts.js";
import { clear, h, number, problem, python, whole } from "./dom.js";

const COLOURS = ["#0072b2", "#d55e00"];
const KINDS = { synthesized_max: "synthesized", natural_max: "NATURAL" };
const OWN = { synthesized_max: "most, synthesized", natural_max: "most, NATURAL", natural_min: "least, NATURAL", synthesized_min: "least, synthesized" };

export async function comparePage(main, backend) {
  const given = new URLSearchParams(location.search || location.hash.slice(1));
  const [a, b] = [given.get("a"), given.get("b")];
  if (!a || !b) throw new Error("Choose two neurons on the population page to compare them.");
  const told = await backend.compare(a, b);
  const [first, second] = told.neurons;
  document.title = `${first.label} and ${second.label} · pocketcortex`;
  const curves = h("div", { class: "charts" }, h("p", { class: "quiet" }, "measuring …"));
  clear(main, h("div", { class: "heading" }, h("h1", {}, mark(0), first.label, " and ", mark(1), second.label)),
    h("div", { class: "pair" }, told.neurons.map((row, k) => column(row, k, told.looks[k], backend))),
    h("h2", {}, "Each other's preferred images"), Object.keys(told.crossed).length ? h("div", { class: "tables" }, Object.keys(KINDS).filter((kind) => told.crossed[kind]).map((kind) => crossed(kind, told, backend))) : h("p", { class: "quiet" }, "Preferred images are still being made."),
    h("h2", {}, "Tuning"), curves, python(told.python),
    backend.static ? null : h("p", { class: "quiet" }, h("a", { href: backend.address(`compare.json?${given}`) }, "this page as JSON")));
  try {
    const tuned = [await backend.tuning(a), await backend.tuning(b)];
    clear(curves, tuned[0].curves.map((curve) => lineChart({
      title: curve.title, xLabel: curve.x_label, x: curve.x,
      lines: tuned.map((one, k) => ({ name: told.neurons[k].label, colour: COLOURS[k], y: one.intact[curve.name].map((y) => y - one.grey) })), level: 0,
    })), h("p", { class: "quiet" }, "Responses above that to plain grey (dotted). Each neuron is shown stimuli about its own receptive field; of gratings its best frequency, of borders its best direction."));
  } catch (error) { clear(curves, problem(error)); }
}

function mark(k) {
  return h("span", { class: k ? "second" : "first", "aria-hidden": "true" }, "● ");
}

function column(row, k, looks, backend) {
  return h("section", {},
    h("h2", {}, mark(k), h("a", { href: backend.page(row.name) }, row.label)),
    h("p", { class: "facts" }, [row.r2 && row.r2.value !== null && `r² ${number(row.r2.value)}`, `${whole(row.parameters)} parameters`, `${row.n_filters} filters (${(row.filters || []).join(", ")})`,
      row.field.diameter_px && `field ${number(row.field.diameter_px, 0)} px`, row.family && row.family !== "none" && `prefers: ${row.family}`, row.dot_detector && "dot detector"].filter(Boolean).join(" · ")),
    row.pictures ? h("div", { class: "gallery" }, Object.entries(OWN).map(([kind, text]) => [kind, text.replace("NATURAL", row.natural_name)]).map(([kind, caption]) => h("figure", { class: "thumb" }, h("img", { src: backend.address(row.pictures[kind]), alt: caption, width: 96, height: 96 }),
        h("figcaption", {}, caption, " ", h("span", { class: "number" }, number(looks.responses[kind])))))) : h("p", { class: "quiet" }, "images are being made"));
}

function crossed(kind, told, backend) {
  const rows = told.neurons;
  return h("table", { class: "crossed" }, h("caption", {}, KINDS[kind].replace("NATURAL", rows[0].natural_name)),
    h("thead", {}, h("tr", {}, h("td", {}), rows.map((row, k) => h("th", { scope: "col", class: "preferred" }, row.pictures ? h("img", { src: backend.address(row.pictures[kind]), alt: "", width: 56, height: 56 }) : null, h("span", {}, mark(k), "preferred by", h("br"), row.label))))),
    h("tbody", {}, rows.map((row, k) => h("tr", {}, h("th", { scope: "row" }, mark(k), "response of ", row.label), told.crossed[kind][k].map((value) => h("td", { class: "number" }, number(value)))))));
}
