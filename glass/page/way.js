// The way through: a box for each layer, and the attention of the row at which the label is read.

const PARTS = ["input_norm", "queries", "keys", "values", "attention", "attention_write", "mlp_norm", "mlp", "lens"];

function waySection(data, state) {
  const most = Math.max(...data.layers.flatMap((layer) => [layer.attention_size, layer.mlp_size]));
  const way = el("div", {class: "way"}, el("div", {class: "layer"}, el("div", {class: "steps"},
    stageButton(data, "embedding"), stageButton(data, "rotation"))));
  data.layers.forEach((layer, index) => {
    const name = `layers.${index}`;
    way.append(el("div", {class: "layer"}, el("h3", {}, `Layer ${index}`),
      el("div", {class: "steps"}, ...PARTS.map((part) => stageButton(data, `${name}.${part}`))),
      el("div", {class: "bars"},
        el("span", {class: "what"}, "attention writes"), bar(layer.attention_size, most),
        el("span", {class: "n", "data-stage": `${name}.attention_write`}, number(layer.attention_size)),
        el("span", {class: "what"}, "the MLP writes"), bar(layer.mlp_size, most),
        el("span", {class: "n", "data-stage": `${name}.mlp`}, number(layer.mlp_size)),
        ...reading(data, "if reading stopped", layer.lens, `${name}.lens`))));
  });
  return el("section", {"aria-labelledby": "h-way"}, el("h2", {id: "h-way"}, "The way through"),
    el("p", {class: "soft"}, "At the token at which the label is read: the length of what attention and the MLP write " +
      "into the residual stream, its bar full at the largest of them, and the labels’ probabilities if reading stopped after the " +
      "layer, from left to right as in the key, of which the largest is named."),
    legend(data.labels), way, attentionPart(data, state));
}

// Probabilities of the labels side by side, and the largest with its label.
function reading(data, words, values, stage) {
  const most = Math.max(...values);
  return [el("span", {class: "what"}, words), stack(values, data.labels), el("span", {class: "n", "data-stage": stage}, number(most)),
    el("span", {class: "whose", "data-stage": stage}, "for “", el("bdi", {}, data.labels[values.indexOf(most)]), "”")];
}

// Attention weights of the answer's row, a line for each head; the arrow keys walk through them.
function attentionPart(data, state) {
  const layer = Math.min(state.layer, data.layers.length - 1);
  const rows = data.layers[layer].attention;
  const heads = rows.length, length = rows[0].length;
  const {box, said} = heatmap(rows, {label: `attention weights of layer ${layer}, ${heads} heads by ${length} tokens`,
    strength: Math.sqrt, stage: () => `layers.${layer}.attention`, say: (head, place) => [
      `head ${head}, place ${place} (${data.tokens[place].part}) `, "“", quoted(data.tokens[place].text), "”",
      `: weight ${number(rows[head][place])}`]});
  const choose = el("select", {id: "layer", onchange: (event) => { state.layer = Number(event.target.value); state.draw(); }},
    ...data.layers.map((_, index) => el("option", {value: index, selected: index === layer}, `layer ${index}`)));
  return el("div", {}, el("h3", {}, el("label", {for: "layer"}, "Attention of the answer’s row, "), choose),
    el("p", {class: "soft"}, "A line for each head, a column for each token from left to right; the redder, the more weight."),
    box, said, largest(data, rows, layer));
}

// Numbers from 0 to 1 as a picture, a line for each row; the arrow keys and the pointer say which is where.
function heatmap(rows, {label, strength, stage, say}) {
  const length = rows[0].length, at = {row: 0, place: rows[0].indexOf(Math.max(...rows[0]))};
  const said = el("p", {class: "soft", "aria-live": "polite"}), mark = svg("rect", {class: "chosen", width: 1, height: 1});
  const box = svg("svg", {viewBox: `0 0 ${length} ${rows.length}`, preserveAspectRatio: "none", tabindex: 0,
    role: "application", "aria-label": `${label}; arrow keys move`});  // else a screen reader keeps the arrow keys
  box.style.height = `${16 * rows.length}px`;
  box.append(svg("rect", {class: "rail", width: length, height: rows.length}));
  rows.forEach((row, y) => row.forEach((value, x) => {
    if (value > 0.002) box.append(svg("rect", {class: "heat", x, y, width: 1, height: 0.94,
      "fill-opacity": Math.min(1, strength(value)).toFixed(3)}));
  }));
  box.append(mark);
  const show = () => {
    put(mark, {x: at.place, y: at.row}, []);
    put(said, {"data-stage": stage(at.row)}, []).replaceChildren(...say(at.row, at.place));
  };
  const move = (row, place) => {
    at.row = Math.max(0, Math.min(rows.length - 1, row));
    at.place = Math.max(0, Math.min(length - 1, place));
    show();
  };
  const moves = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
  box.addEventListener("keydown", (event) => {
    if (!moves[event.key]) return;
    event.preventDefault();
    move(at.row + moves[event.key][0], at.place + moves[event.key][1]);
  });
  box.addEventListener("pointermove", (event) => {
    const frame = box.getBoundingClientRect();
    move(Math.floor((event.clientY - frame.top) / frame.height * rows.length), Math.floor((event.clientX - frame.left) / frame.width * length));
  });
  show();
  return {box, said};
}

function largest(data, rows, layer) {
  const all = rows.flatMap((row, head) => row.map((weight, place) => ({head, place, weight})));
  all.sort((a, b) => b.weight - a.weight);
  const body = all.slice(0, 24).map((one) => el("tr", {}, el("td", {class: "n"}, String(one.head)),
    el("td", {class: "n"}, String(one.place)), el("th", {scope: "row", class: "word"}, quoted(data.tokens[one.place].text)),
    el("td", {}, data.tokens[one.place].part), el("td", {class: "n"}, number(one.weight))));
  return fold("largest", "the largest of these weights as a table",
    framed("the largest weights", `layers.${layer}.attention`, el("table", {}, el("thead", {}, el("tr", {},
      ...["head", "place", "token", "part", "weight"].map((word) => columnHead({}, word)))), el("tbody", {}, ...body))));
}
