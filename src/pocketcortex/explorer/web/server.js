// What a page asks of Python: every call is one request that carries all it is about.

import { root } from "./dom.js";

async function answer(response) {
  if (response.ok) return response.json();
  const told = await response.text();
  let error = told;
  try {
    error = JSON.parse(told).error || told;
  } catch { /* plain text */ }
  throw new Error(error || `the server answered ${response.status}`);
}

const get = async (path) => answer(await fetch(root + path));
const at = (name, rest) => `neuron/${encodeURIComponent(name)}${rest}`;
const post = async (name, what, asked) =>
  answer(await fetch(root + at(name, `/${what}`), {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(asked),
  }));

export const server = {
  static: false,
  address: (path) => (path.startsWith("data:") ? path : root + path),
  zooPage: `${root}zoo`,
  page: (name) => root + at(name, ""),
  comparePage: (a, b) => `${root}compare?a=${encodeURIComponent(a)}&b=${encodeURIComponent(b)}`,
  population: () => get("population.json"),
  neuron: (name) => get(at(name, ".json")),
  looks: (name) => get(at(name, "/looks.json")),
  tuning: (name) => get(at(name, "/tuning.json")),
  adversarial: (name) => get(at(name, "/adversarial.json")),
  compare: (a, b) => get(`compare.json?a=${encodeURIComponent(a)}&b=${encodeURIComponent(b)}`),
  zoo: () => get("zoo.json"),
  upload: async (name, file) => answer(await fetch(root + at(name, "/upload"), { method: "POST", body: file })),
  respond: (name, asked) => post(name, "respond", asked),
  effects: (name, asked) => post(name, "effects", asked),
  trace: (name, asked) => post(name, "trace", asked),
  saliency: (name, asked) => post(name, "saliency", asked),
  tuningWithout: (name, without) => post(name, "tuning", { without }),

  // Call `onStep` with every step until the last one, or until `stop` is called.
  synthesize(name, asked, onStep) {
    const control = new AbortController();
    const run = async () => {
      const response = await fetch(root + at(name, "/synthesize"), {
        method: "POST", headers: { "content-type": "application/json" },
        body: JSON.stringify(asked), signal: control.signal,
      });
      if (!response.ok) await answer(response);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let left = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        const lines = (left + value).split("\n");
        left = lines.pop();
        for (const line of lines) onStep(JSON.parse(line));
      }
    };
    const done = run().catch((error) => {
      if (error.name !== "AbortError") throw error;
    });
    return { stop: () => control.abort(), done };
  },
};
