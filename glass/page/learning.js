// A step of learning: choose the label that the post should have, press; what that changed, and how; again; undo.

function learningSection(data, state) {
  const section = el("section", {"aria-labelledby": "h-learning"}, el("h2", {id: "h-learning"}, "A step of learning"));
  if (!data.learning) {
    section.append(el("p", {class: "soft"}, "The model carries no adapter, so nothing of it could learn."));
    return section;
  }
  if (!frozen.live && state.step === undefined) state.step = data.learnt - 1;
  const at = frozen.live ? data.learning.length - 1 : state.step;
  section.append(el("p", {class: "soft"}, "Choose the label that the post should have. One press is one step of training, " +
    "as train.py makes it, on this post alone; only the adapter’s A and B change, in memory. " + (frozen.live ?
    "The whole page then shows the changed model; undo brings back every bit. The run’s files stay as they are." :
    "This page was kept: it holds the steps that were computed for it, and its other parts show the model " +
    (data.learnt ? `after step ${data.learnt}.` : "before them."))), learningControls(data, state, at));
  if (at >= 0) section.append(...whatChanged(data, data.learning[at]), ...howChanged(data, data.learning[at], state));
  return section;
}

// Place of the step that follows the one at `at` towards a label, in a page that cannot compute; -1 if it holds none.
function following(data, at, label) {
  const number = at < 0 ? 1 : data.learning[at].number + 1;
  if (at >= 0 && number > 1) {
    const next = data.learning[at + 1];
    return next && next.number === number && next.label === label ? at + 1 : -1;
  }
  return data.learning.findIndex((step) => step.number === 1 && step.label === label);
}

function learningControls(data, state, at) {
  const labels = data.labels.map((_, index) => index);
  const open = frozen.live ? labels : labels.filter((label) => following(data, at, label) >= 0);
  if (!labels.includes(state.target) || (state.targetOf !== data.text && !data.learnt)) {
    state.targetOf = data.text;
    const others = labels.filter((label) => data.labels[label] !== data.label);  // the one that it came nearest to
    state.target = others.reduce((most, label) => data.probabilities[label] > data.probabilities[most] ? label : most, others[0]);
  }
  const offered = open.length || at < 0 ? open : [data.learning[at].label];
  const chosen = offered.includes(state.target) ? state.target : offered[0];
  const choose = el("select", {id: "target", disabled: !open.length,
    onchange: (event) => { state.target = Number(event.target.value); }},
  ...offered.map((label) => el("option", {value: label, selected: label === chosen}, data.labels[label])));
  const step = el("button", {type: "button", id: "step", disabled: !open.length, onclick: () => {
    state.target = Number(choose.value);
    move(() => ask("step", {text: box.value, label: data.labels[state.target]}), following(data, at, state.target));
  }}, at < 0 ? "take a step" : "take another");
  const number = at < 0 ? 0 : data.learning[at].number;
  const undo = el("button", {type: "button", id: "undo", disabled: at < 0, onclick: () =>
    move(() => ask("undo", {}), number > 1 ? at - 1 : -1, number)}, "undo");
  const words = (number ? `${number} ${number === 1 ? "step" : "steps"} taken` : "no step taken") +
    (open.length ? "" : "; this page holds no further one");
  return el("div", {class: "choice"}, el("label", {for: "target"}, "the label should be"), choose, step, undo,
    el("span", {class: "soft", id: "steps", "data-stage": number ? `${data.learning[at].name}.loss` : null}, words),
    state.undone ? el("span", {class: "soft", id: "undone"}, "undone: back to before ", el("bdi", {}, `step ${state.undone}`)) : null);
}

let moving = false;

// Live, ask and draw anew; in a page that was kept, show the step at another place. `undone`: the step that is taken back.
async function move(asking, place, undone) {
  if (moving) return;
  moving = true;
  try {
    if (frozen.live) {
      document.getElementById("steps").textContent = LATER;
      if (busy) await leave();
      await asking();
      state.undone = undone;
      if (frozen.small && !state.against.what && !state.against.text) state.against = {what: frozen.saved, text: "", own: true};
      moving = false;  // whoever undoes at once need not wait until all of the page is there
      await update();
    } else {
      Object.assign(state, {step: place, undone});
      state.draw();
    }
  } catch (error) {
    state.draw();
    said.textContent = error.message;
  } finally {
    moving = false;
  }
  if (document.activeElement === document.body) {  // the button that was pressed has nothing more to do
    [...document.querySelectorAll("#step, #undo")].filter((button) => !button.disabled).slice(0, 1).forEach((button) => button.focus());
  }
  const steps = [...document.querySelectorAll("#undone, #steps")].map((one) => one.textContent).join("; ");
  spoken.textContent = frozen.live ? `${steps}; ${spoken.textContent}` : steps;
}

function whatChanged(data, step) {
  const cell = (value, stage) => el("td", {class: "n", "data-stage": stage}, number(value));
  const rows = data.labels.map((label, index) => el("tr", {}, el("th", {scope: "row"},
    el("bdi", {}, index === step.label ? el("strong", {}, label) : label)), cell(step.before[index], `${step.name}.loss`),
  cell(step.after[index], `${step.name}.after`), el("td", {class: "barred"}, bar(step.after[index] - step.before[index], 1, null, true))));
  return [el("h3", {}, `What step ${step.number} changed`),
    el("p", {}, "It taught that ", step.text === data.text ? "this post" : el("span", {class: "post"}, "“", quoted(step.text), "”"), " is ",
      el("strong", {}, el("bdi", {}, data.labels[step.label])), ". The loss, which is −log of that label’s probability, went from ",
      el("span", {"data-stage": `${step.name}.loss`}, number(step.losses[0])), " to ",
      el("span", {"data-stage": `${step.name}.after`}, number(step.losses[1])), ".",
      frozen.live ? " Type another post at the top: below its labels stands what they were before any step." : null),
    framed("probabilities before and after", null, el("table", {class: "why"},
      el("thead", {}, el("tr", {}, ...["label", "before", "after", "change, ±1"].map((word, place) => columnHead({
        class: place === 1 || place === 2 ? "n" : null, "data-stage": place === 3 ? `${step.name}.after` : null}, word)))), el("tbody", {}, ...rows))),
    frozen.live ? el("div", {class: "choice"}, el("button", {type: "button", id: "unlearnt", onclick: holdAgainstSaved},
      "compare with the run before any step, layer by layer")) : null,
    el("div", {class: "layer"}, el("div", {class: "steps"}, stageButton(data, `${step.name}.loss`),
      stageButton(data, `${step.name}.after`)))].filter((part) => part);
}

// The run as its files have it becomes B under "Two of anything", where every post is then shown before and after.
async function holdAgainstSaved() {
  state.against = {what: frozen.saved, text: "", own: true};
  await compare();
  const what = document.getElementById("against-what");
  what.focus({preventScroll: true});
  what.closest("section").scrollIntoView();
}

function howChanged(data, step, state) {
  const clipped = step.factor < 1 ? `more than the ${number(step.clip)} that the recipe allows, so all were multiplied by ${number(step.factor)}` :
    "which the recipe allows, so they stayed as they were";
  const most = (values) => Math.max(1e-30, ...values);
  const tops = {A: most(step.A_gradients), B: most(step.B_gradients)};
  const cell = (value, stage) => el("td", {class: "n", "data-stage": `${step.name}.${stage}`}, number(value));
  const rows = step.modules.map((module, index) => el("tr", {}, el("th", {scope: "row"}, module.replace(/^model\./, "")),
    ...["A", "B"].flatMap((part) => [cell(step[`${part}_gradients`][index], "clipping"),
      el("td", {class: "barred thin"}, bar(step[`${part}_gradients`][index], tops[part]))]),
    ...["A", "B"].flatMap((part) => [cell(step[`${part}_sizes`][index], "changes"), cell(step[`${part}_changes`][index], "changes")])));
  const head = ["module", "gradient of A", "", "gradient of B", "", "A before", "change of A", "B before", "change of B"];
  return [el("h3", {}, "How"),
    el("p", {}, "Going backwards from the loss, each weight of the adapter gets a gradient: how fast the loss would grow with it. The " +
      "length of all gradients together is ", el("span", {"data-stage": `${step.name}.clipping`}, number(step.norm)), ", ",
    el("span", {"data-stage": `${step.name}.clipping`}, clipped), ". AdamW keeps two running means of each gradient, of itself (m) and of " +
      "its square (v). Both begin at zero, so each is first enlarged by what it still lacks; then the weight moves against m / √v: in a " +
      "first step by nearly the rate, ",
    el("span", {"data-stage": `${step.name}.changes`}, number(step.rate)), ", however small the gradient.", step.number > 1 ? null :
      " So a matrix changes by about the rate times the root of its number of weights, whatever the length of its gradient."),
    el("details", {open: state.modules, ontoggle: (event) => { state.modules = event.target.open; }},
      el("summary", {}, `every module: lengths of its gradients${step.factor < 1 ? " before clipping" : ""}, of its weights, and of their change`),
      framed("every module", null, el("table", {class: "named stacked"}, el("thead", {}, el("tr", {},
        ...head.map((word, place) => columnHead({class: place ? word ? "n" : "thin" : null}, word)))), el("tbody", {}, ...rows)))),
    el("div", {class: "layer"}, el("div", {class: "steps"}, stageButton(data, `${step.name}.clipping`),
      stageButton(data, `${step.name}.changes`))), oneModule(data, step, state)];
}

// The weights of one module that lie on a line with its largest gradient: from the gradient to the new weight.
function oneModule(data, step, state) {
  if (!step.whole) return el("p", {class: "soft"}, "Each weight’s way is kept for the last steps alone.");
  if (!step.modules.includes(state.module)) state.module = step.modules[0];
  const place = el("div", {});
  const choose = el("select", {id: "learnt", onchange: (event) => { state.module = event.target.value; state.draw(); }},
    ...step.modules.map((name) => el("option", {value: name, selected: name === state.module}, name.replace(/^model\./, ""))));
  fillModule(data, step, state.module, place);
  return el("div", {}, el("h3", {}, el("label", {for: "learnt"}, "Some weights, before and after: "), choose),
    el("p", {class: "soft", "data-stage": `${step.name}.clipping`}, "Of B the row, and of A the column, in which its largest gradient lies; the gradient is the one " +
      (step.factor < 1 ? `before clipping, m and v take ${number(step.factor)} times it.` : "that m and v take.")), place,
    el("div", {class: "layer"}, el("div", {class: "steps"}, stageButton(data, `${step.name}.gradient.${state.module}`, "their gradients"),
      stageButton(data, `${step.name}.update.${state.module}`, "AdamW on them"))));
}

async function fillModule(data, step, module, place) {
  const [gradient, update] = [`${step.name}.gradient.${module}`, `${step.name}.update.${module}`];
  let found;
  try {
    found = [await details(data, gradient), await details(data, update)];
    if (found.includes(null)) return;
    found = found.flat();
  } catch (error) {
    said.textContent = error.message;
    return;
  }
  const values = (name) => found.find((tensor) => tensor.name === name);
  place.replaceChildren(el("div", {class: "wide"}, ...["B", "A"].map((part) => {
    const columns = [["before", "before", update], ["gradient", "gradient", gradient], ["m", "m", update], ["v", "v", update],
      ["change", "update", update], ["after", "after", update]].map(([word, name, stage]) => [word, values(`${part}_${name}`).values, stage]);
    return framed(`weights of ${part}`, null, el("table", {class: "dense"},
      el("caption", {"data-stage": gradient}, `${part}, ${values(`${part}_before`).row}`),
      el("thead", {}, el("tr", {}, ...columns.map(([word]) => columnHead({class: "n"}, word)))),
      el("tbody", {}, ...columns[0][1].map((_, row) => el("tr", {}, ...columns.map(([, all, stage]) =>
        el("td", {class: "n", "data-stage": stage}, number(all[row]))))))));
  })));
}
