// The page that the address names.

import { clear, h, mode, problem, root } from "./dom.js";
import { server } from "./server.js";
import { statically } from "./statically.js";
import { populationPage } from "./population.js";
import { neuronPage } from "./neuron.js";
import { comparePage } from "./compare.js";
import { zooPage } from "./zoo.js";

const pages = { population: populationPage, neuron: neuronPage, compare: comparePage, zoo: zooPage };
const backend = mode === "static" ? statically : server;
const page = document.documentElement.dataset.page;
const main = document.getElementById("main");

function links() {
  const home = backend.static ? `${root}index.html` : root;
  document.getElementById("home").href = home;
  const wanted = [["population", "Population", home]];
  if (document.documentElement.dataset.zoo) wanted.push(["zoo", "Zoo", backend.zooPage]);
  clear(
    document.getElementById("nav"),
    wanted.map(([name, text, href]) => h("a", { href, "aria-current": name === page ? "page" : null }, text)),
  );
}

links();
pages[page](main, backend).catch((error) => clear(main, problem(error)));
