// Small helpers to build pages with: elements, numbers, waiting.

export const root = document.documentElement.dataset.root;
export const mode = document.documentElement.dataset.mode;

// Return an element: tag, attributes (on... are listeners, true/false switch), children.
export function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.flat(Infinity));
  return made;
}

export function clear(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

// Return a number as text; a dash where there is none.
export function number(value, digits = 2) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const text = value.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

export function whole(value) {
  return value === null || value === undefined ? "–" : value.toLocaleString("en-US");
}

// Call `work` once it was not asked for again for some milliseconds.
export function settled(work, milliseconds) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), milliseconds);
  };
}

// Return a panel that shows Python, with a button that copies it.
export function python(code, label = "Python") {
  const shown = h("pre", {}, code);
  const copy = h("button", {
    type: "button", class: "small",
    onclick: async () => {
      await navigator.clipboard.writeText(shown.textContent);
      copy.textContent = "Copied";
    },
  }, "Copy");
  const panel = h("details", { class: "python" }, h("summary", {}, label), copy, shown);
  return Object.assign(panel, { show: (text) => { shown.textContent = text; } });
}

// Show an error where it happened.
export function problem(error) {
  return h("p", { class: "problem", role: "alert" }, error.message || String(error));
}
