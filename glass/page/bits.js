// Four bits: one block of 64 weights, the sixteen values that it can hold, and what became of each weight.

function bitsSection(data) {
  const section = el("section", {"aria-labelledby": "h-bits"}, el("h2", {id: "h-bits"}, "Four bits"));
  if (!data.bits) {
    section.append(el("p", {class: "soft"}, data.tax ? "No matrix of the model is in four bits." : frozen.live ? LATER : NEVER));
    return section;
  }
  const bits = data.bits, original = bits.original;
  section.append(el("p", {class: "soft", "data-stage": "bits"}, `Block ${bits.block} of ${bits.linear.replace(/^model\./, "")}: its scale is ` +
    `${number(bits.scale[0])}` + (bits.scale_code ? `, which itself comes back from the byte ${bits.scale_code[0]} (its level times ` +
    `${number(bits.nested_scale[0])}, plus ${number(bits.offset[0])})` + (original ? ` and was ${number(bits.largest[0])} before` : "") : "") +
    (original ? `, that of weight ${widest(original)}; the largest error is ${number(Math.max(...bits.error.map(Math.abs)))}, and ` +
      `${bits.values.filter((value) => value === 0).length} of ${original.length} weights come back as 0` : "; the original values are not at hand") +
    ". The lines are the sixteen values that a weight of this block can have, the dots its weights, from minus the scale to plus the scale. " +
    "Two weights share a byte. The matrix that was rounded worst is named by .venv/bin/python -m audit --parts quantisation."),
  choice(data) || "", numberLine(bits), bitsTable(bits),
  el("div", {class: "layer"}, el("div", {class: "steps"}, stageButton(data, "bits"))));
  return section;
}

// The weight with the largest magnitude, which sets the block's scale.
function widest(values) {
  return values.reduce((most, value, index) => Math.abs(value) > Math.abs(values[most]) ? index : most, 0);
}

function choice(data) {
  if (!frozen.live) return null;
  const matrix = el("select", {id: "matrix"}, ...Object.keys(data.matrices).map((name) =>
    el("option", {value: name, selected: name === data.bits.linear}, name.replace(/^model\./, ""))));
  const block = el("input", {id: "block", type: "number", min: 0, value: data.bits.block,
    max: data.matrices[data.bits.linear] - 1});
  const change = () => more("bits", {linear: matrix.value, block: Number(block.value)});
  matrix.addEventListener("change", change);
  block.addEventListener("change", change);
  const words = data.bits.original ? "the one with the largest part of the matrix’s squared error" : "the original values are not at hand";
  const worst = el("button", {type: "button", id: "worst", disabled: !data.bits.original, "aria-describedby": "worst-words",
    onclick: () => more("bits", {linear: matrix.value, block: null})}, "its worst block");
  return el("div", {class: "choice"}, el("label", {for: "matrix"}, "matrix"), matrix, el("label", {for: "block"}, "block"), block, worst,
    el("span", {class: "soft", id: "worst-words"}, words));
}

function numberLine(bits) {
  const scale = bits.scale[0] || 1;
  const at = (value) => 2 + 96 * (value / scale + 1) / 2;
  const box = svg("svg", {class: "line", viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label":
    `${bits.codes.length} weights among sixteen values from ${number(-scale)} to ${number(scale)}; the table has each of them`});
  box.style.height = "4rem";
  for (const level of bits.levels) box.append(svg("line", {x1: at(level * scale), x2: at(level * scale), y1: 0, y2: 10}));
  (bits.original || bits.values).forEach((value, index) =>
    box.append(svg("rect", {class: "dot", x: at(value) - 0.15, y: 0.5 + 9 * index / 64, width: 0.3, height: 0.5})));
  return box;
}

function bitsTable(bits) {
  const head = ["weight", ...(bits.original ? ["original"] : []), "byte", "code", "comes back", ...(bits.original ? ["error (back − original)"] : [])];
  const cell = (value) => el("td", {class: "n"}, number(value));
  const body = bits.codes.map((code, index) => el("tr", {}, el("th", {scope: "row", class: "n"}, number(index)), bits.original ? cell(bits.original[index]) : null,
    el("td", {class: "n"}, "0x" + bits.packed[index >> 1].toString(16).padStart(2, "0")), cell(code), cell(bits.values[index]),
    bits.original ? cell(bits.error[index]) : null));
  return fold("block", "the block as a table", framed("the weights of the block", "bits",
    el("table", {}, el("thead", {}, el("tr", {},
      ...head.map((word) => columnHead({class: "n"}, word)))), el("tbody", {}, ...body))));
}
