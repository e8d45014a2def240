// One stage, opened by a button: its formula, its tensors at the answer's row, and the code that computed them.

const FEW = 8;  // numbers that are simply shown
let openStage = null;

function stageButton(data, name, words) {
  const stage = data.stages.find((one) => one.name === name);
  return el("button", {type: "button", "aria-pressed": String(openStage === name), "data-open": name,
    onclick: (event) => toggleStage(data, name, event.target)}, words || stage.title);
}

async function toggleStage(data, name, button) {
  document.querySelectorAll(".stage").forEach((node) => node.remove());
  document.querySelectorAll("[data-open]").forEach((node) => node.setAttribute("aria-pressed", "false"));
  if (openStage === name) {
    openStage = null;
    return;
  }
  openStage = name;
  button.setAttribute("aria-pressed", "true");
  const tensors = await details(data, name);
  if (openStage !== name || !tensors) return;
  const panel = stagePanel(data, name, tensors);
  button.parentElement.after(panel);
}

// The stage's tensors; null for a step of learning that was undone meanwhile.
async function details(data, name) {
  return data.details ? data.details[name] : (await ask("stage", {text: data.asked, stage: name})).tensors;
}

function stagePanel(data, name, tensors) {
  const stage = data.stages.find((one) => one.name === name);
  const panel = el("div", {class: "stage", role: "region", "aria-label": stage.title, "data-stage": name},
    el("h3", {}, stage.title, " ", el("span", {class: "soft"}, name)), el("p", {class: "formula"}, stage.formula));
  for (const tensor of tensors) {
    panel.append(el("p", {}, el("strong", {}, tensor.name), ` ${tensor.shape.length ? tensor.shape.join(" × ") : "one number"}` +
      `, ${tensor.dtype}`, el("span", {class: "soft"}, tensor.row ? `; shown: ${tensor.row}` : "")));
    const shown = tensor.values.map(number).join("  ");
    if (tensor.values.length <= FEW) {
      panel.append(el("div", {class: "few"}, shown));
      continue;
    }
    panel.append(strip(tensor.values));
    panel.append(fold(`${name}.${tensor.name}`, `${tensor.values.length} numbers`, 
      el("div", {class: "numbers", ...scrolled(`${tensor.name}, all its numbers`)}, shown)));
  }
  for (const index of stage.code) panel.append(codeBlock(data.codes[index]));
  return panel;
}

function codeBlock(code) {
  const block = el("pre", scrolled(`${code.name} in ${code.path}`));
  code.lines.forEach((line, place) => {
    const row = `${String(code.first + place).padStart(4)}  ${line}`;
    block.append(code.marked.includes(code.first + place) ? el("mark", {}, row) : row, "\n");
  });
  return el("div", {}, el("p", {class: "soft"}, `${code.path}, ${code.name}: the lines that computed it are marked`), block);
}
