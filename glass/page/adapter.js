// LoRA: the label as the adapter goes from nothing to twice its strength, and the spectrum of each update.

function adapterSection(data, state) {
  const section = el("section", {"aria-labelledby": "h-adapter"}, el("h2", {id: "h-adapter"}, "The adapter"));
  if (!data.adapter) {
    section.append(el("p", {class: "soft"}, data.why ? "The model carries none." : "being computed"));
    return section;
  }
  const {factors, probabilities, spectrum} = data.adapter;
  const grid = el("div", {class: "labels", "data-stage": "factors"});
  const said = el("output", {for: "factor", "data-stage": "factors"});
  const show = () => {
    said.textContent = `${factors[state.factor]} times as strong`;
    grid.replaceChildren(...data.labels.flatMap((label, index) => {
      const p = probabilities[state.factor][index];
      return [el("bdi", {class: "name"}, label), bar(p, 1, kind(index)), el("span", {class: "n"}, number(p))];
    }));
  };
  const slider = el("input", {type: "range", id: "factor", min: 0, max: factors.length - 1, step: 1, value: state.factor,
    oninput: (event) => { state.factor = Number(event.target.value); show(); }});
  show();
  const most = Math.max(...spectrum.flatMap((one) => one.values));
  section.append(el("p", {class: "soft"}, "At 0 the base answers alone, at 1 the fine-tuned model; in between and beyond, " +
    "its update is that much weaker or stronger."),
  el("div", {class: "wide"}, el("div", {}, el("label", {for: "factor"}, "Strength: "), said, slider, grid),
    el("details", {}, el("summary", {}, "what each update is made of: singular values of s B A"),
      el("div", {class: "frame", tabindex: 0, role: "group", "aria-label": "singular values", "data-stage": "spectrum"},
        el("table", {}, ...spectrum.map((one) => el("tr", {}, el("th", {scope: "row"}, one.name),
          el("td", {class: "barred"}, columns(one.values, most)), el("td", {class: "n"}, number(one.values[0])))))))),
  el("div", {class: "layer"}, el("div", {class: "steps"}, stageButton(data, "factors"), stageButton(data, "spectrum"))));
  return section;
}

// Numbers from 0 to `most` as columns side by side.
function columns(values, most) {
  const box = svg("svg", {viewBox: `0 0 ${values.length} 1`, preserveAspectRatio: "none", class: "bar", "aria-hidden": "true"});
  values.forEach((value, x) => box.append(svg("rect", {class: "plus", x, y: 1 - value / most, width: 0.85, height: value / most})));
  return box;
}
