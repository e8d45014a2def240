// Small helpers: elements made of text alone (never of markup), numbers as text, words for what shows no sign.

const SVG = "http://www.w3.org/2000/svg";

function put(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children) if (child !== null && child !== undefined) node.append(child);
  return node;
}

const el = (name, attributes, ...children) => put(document.createElement(name), attributes, children);
const svg = (name, attributes, ...children) => put(document.createElementNS(SVG, name), attributes, children);

const LATER = "being computed", NEVER = "not computed for this page";

// A fold that stays open, or closed, when the page is drawn anew; `summary` is text or an element.
const unfolded = new Set();

function fold(id, summary, ...children) {
  return el("details", {"data-fold": id, open: unfolded.has(id), ontoggle: (event) => unfolded[event.target.open ? "add" : "delete"](id)},
    el("summary", {}, summary), ...children);
}

// The title of a column; an empty one, above bars whose numbers stand beside them, is no title.
const columnHead = (attributes, word) => el(word ? "th" : "td", {scope: word ? "col" : null, ...attributes}, word);

// What somebody wrote, in a language that the page does not know: a whole post, or some words of it.
const posted = (text) => el("p", {class: "post", dir: "auto", lang: "", ...scrolled("the post")}, visible(text));
const quoted = (text) => el("bdi", {dir: "auto", lang: ""}, visible(text));

// What a box needs that may hold more than it shows: keys reach and scroll it, and it has a name.
const scrolled = (words) => ({tabindex: 0, role: "group", "aria-label": words});

// A table in a box of its own, which scrolls where the table has too many rows or, with long words, is too wide.
function framed(words, stage, table) {
  if (!table.caption) table.setAttribute("aria-label", words);
  return el("div", {class: table.rows.length > 65 ? "frame long" : "frame", ...scrolled(words), "data-stage": stage}, table);
}

function number(value) {
  if (value === null) return "−∞";
  if (Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  const digits = size && (size < 0.0001 || size >= 10000) ? value.toExponential(2) : size < 10 ? value.toFixed(4) : value.toPrecision(6);
  return digits.replace(/-/g, "−");
}

// Controls, marks that turn the direction of writing, joiners and the like, written out: a token must show what it is.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/gu;

function visible(text) {
  const names = {"\n": "⏎", "\t": "⇥", " ": "·"};
  return text.replace(/^ | $/g, "·").replace(UNSEEN, (c) => names[c] ||
    "‹U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") + "›");
}

function kind(index) { return "k" + (index % 6); }

// A horizontal bar from 0 to `most` in a colour that is no label's, or in that of the class `css`; or to both sides of
// the middle for numbers with a sign.
function bar(value, most, css, signed) {
  const share = most ? Math.min(1, Math.abs(value) / most) : 0;
  const box = svg("svg", {viewBox: "0 0 100 6", preserveAspectRatio: "none", class: "bar", "aria-hidden": "true"});
  box.append(svg("rect", {class: "rail", width: 100, height: 6}));
  const width = signed ? 50 * share : 100 * share;
  const x = signed ? (value < 0 ? 50 - width : 50) : 0;
  box.append(svg("rect", {class: css || (signed ? (value < 0 ? "minus" : "plus") : "size"), x, width, height: 6}));
  return box;
}

// Probabilities of the labels in one bar, side by side; read out, each with its label.
function stack(values, labels) {
  const box = svg("svg", {viewBox: "0 0 100 6", preserveAspectRatio: "none", class: "bar stack", role: "img",
    "aria-label": labels.map((label, index) => `${label} ${number(values[index])}`).join(", ")});
  let x = 0;
  values.forEach((value, index) => {
    box.append(svg("rect", {class: kind(index), x, width: 100 * value, height: 6}));
    x += 100 * value;
  });
  return box;
}

function legend(labels) {
  return el("ul", {class: "key"}, ...labels.map((label, index) => el("li", {},
    svg("svg", {viewBox: "0 0 1 1", "aria-hidden": "true"}, svg("rect", {class: kind(index), width: 1, height: 1})), el("bdi", {}, label))));
}

// A row of numbers as one strip of colour; `signed` numbers in two colours.
function strip(values) {
  const most = Math.max(1e-30, ...values.map((v) => Math.abs(v === null ? 0 : v)));
  const box = svg("svg", {viewBox: `0 0 ${values.length} 1`, preserveAspectRatio: "none", class: "bar",
    "aria-hidden": "true"});
  values.forEach((value, x) => {
    if (value) box.append(svg("rect", {class: value < 0 ? "minus" : "plus", x, width: 1.02, height: 1,
      "fill-opacity": (Math.abs(value) / most).toFixed(3)}));
  });
  return box;
}
