// LoRA: the label as the adapter goes from nothing to twice its strength, and the spectrum of each update.

function adapterSection(data, state) {
  const section = el("section", {"aria-labelledby": "h-adapter"}, el("h2", {id: "h-adapter"}, "The adapter"));
  if (!data.adapter) {
    section.append(el("p", {class: "soft"}, data.tax ? "The model carries none." : frozen.live ? LATER : NEVER));
    return section;
  }
  const {factors, probabilities, spectrum, parts, names} = data.adapter;
  const most = (key) => Math.max(...spectrum.flatMap((one) => one[key]));
  const tops = [["A", "A", most("A")], ["B", "B", most("B")], ["values", "s B A", most("values")]];
  const there = frozen.live ? names : names.filter((name) => parts[name]);
  if (!there.includes(state.part)) state.part = there[0];
  section.append(el("p", {class: "soft"}, "Beside each matrix W that it adapts stand two thin ones, A and B, the only weights that " +
    "fine-tuning changed: the linear gives W x + s B A x, with s one number that the recipe fixed. The update s B A can be turned: at " +
    "zero the base answers alone, at one the fine-tuned model; in between and beyond it is that much weaker or stronger."),
  el("div", {class: "wide"},
    el("div", {}, el("h3", {}, "All of it"), strengthSlider(data, state, {id: "factor", key: "factor", stage: "factors", factors, probabilities})),
    there.length ? el("div", {}, el("h3", {}, el("label", {for: "part"}, "One part of it: "), partChoice(there, state)),
      partSlider(data, state)) : null),
  fold("spectrum", "what each update is made of: singular values of A, of B and of s B A, and the largest of these",
    framed("singular values", "spectrum", el("table", {class: "full named stacked four"},
      el("thead", {}, el("tr", {}, ...["linear", "A", "B", "s B A", "largest"].map((word) =>
        columnHead({class: word === "largest" ? "n" : null}, word)))),
      el("tbody", {}, ...spectrum.map((one) => el("tr", {}, el("th", {scope: "row"}, one.name),
        ...tops.map(([key, words, top]) => el("td", {class: "barred"}, columns(one[key], top, `singular values of ${words} of ${one.name}`))),
        el("td", {class: "n"}, number(one.values[0])))))))),
  el("div", {class: "layer"}, el("div", {class: "steps"}, stageButton(data, "factors"), stageButton(data, "spectrum"),
    parts[state.part] ? stageButton(data, `factors.${state.part}`) : null)));
  return section;
}

// Probabilities of the labels by a strength; the strength's place is kept in the page's state under `key`.
function strengthSlider(data, state, {id, key, stage, factors, probabilities}) {
  const grid = el("div", {class: "labels", "data-stage": stage});
  const said = el("output", {for: id, "data-stage": stage});
  const show = () => {
    said.textContent = `${factors[state[key]]} times as strong`;
    slider.setAttribute("aria-valuetext", said.textContent);  // else its place among the strengths is read out
    grid.replaceChildren(...data.labels.flatMap((label, index) => {
      const p = probabilities[state[key]][index];
      return [el("bdi", {class: "name"}, label), bar(p, 1, kind(index)), el("span", {class: "n"}, number(p))];
    }));
  };
  const slider = el("input", {type: "range", id, min: 0, max: factors.length - 1, step: 1, value: state[key],
    oninput: (event) => { state[key] = Number(event.target.value); show(); }});
  show();
  return el("div", {}, el("label", {for: id}, "Strength: "), said, slider, grid);
}

function partChoice(names, state) {
  const group = (label, chosen) => el("optgroup", {label}, ...chosen.map((name) =>
    el("option", {value: name, selected: name === state.part}, name)));
  const layers = names.filter((name) => /^layers\.\d+$/.test(name));
  const kinds = names.filter((name) => !name.includes("."));
  const linears = names.filter((name) => !layers.includes(name) && !kinds.includes(name));
  return el("select", {id: "part", onchange: (event) => { state.part = event.target.value; state.draw(); }},
    group("a layer", layers), group("all linears of one kind", kinds), linears.length ? group("one linear", linears) : null);
}

function partSlider(data, state) {
  const {parts, part_factors: factors} = data.adapter;
  if (parts[state.part]) return strengthSlider(data, state, {id: "part-factor", key: "partFactor",
    stage: `factors.${state.part}`, factors, probabilities: parts[state.part]});
  const get = el("button", {type: "button", id: "part-get", onclick: async () => {
    await more("part", {part: state.part});
    const slider = document.getElementById("part-factor");
    if (slider) slider.focus();  // the button is gone
  }}, "compute its strengths");
  return el("div", {}, el("p", {class: "soft"}, "Turned alone, all else as it is."), get);
}

// Numbers from 0 to `most` as columns side by side; read out, what they are and each of them.
function columns(values, most, words) {
  const box = svg("svg", {viewBox: `0 0 ${values.length} 1`, preserveAspectRatio: "none", class: "bar", role: "img",
    "aria-label": `${words}: ${values.map(number).join(", ")}`});
  values.forEach((value, x) => box.append(svg("rect", {class: "size", x, y: 1 - value / most, width: 0.85, height: value / most})));
  return box;
}
