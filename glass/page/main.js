// The page: frozen for one post, or live, where Python computes and this shows.

const frozen = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
const box = el("textarea", {id: "post", dir: "auto", spellcheck: "false", maxlength: 20000});
const said = el("p", {class: "error", role: "status"});
const body = el("div", {});
const state = {layer: 0, factor: 4, data: null, kept: null, draw: () => draw(state.data)};
let busy = false, waiting = false, timer = 0;

async function ask(what, content) {
  const answer = await fetch(what, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(content)});
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

function draw(data) {
  state.data = data;
  const open = openStage;
  const focused = document.activeElement && document.activeElement.id;
  body.replaceChildren(...sections(data));
  if (focused && document.getElementById(focused)) document.getElementById(focused).focus();
  if (open) {
    const button = [...document.querySelectorAll("[data-open]")].find((node) => node.dataset.open === open);
    openStage = null;
    if (button) toggleStage(data, open, button);
  }
}

function sections(data) {
  return [el("div", {class: "wide"}, tokensSection(data), labelsSection(data, state)), whySection(data),
    adapterSection(data, state), waySection(data, state), bitsSection(data)];
}

async function update() {
  if (busy) {
    waiting = true;
    return;
  }
  busy = true;
  try {
    do {
      waiting = false;
      const began = performance.now();
      const text = box.value;
      const data = Object.assign(await ask("trace", {text}), {asked: text});
      said.textContent = "";
      draw(data);
      document.documentElement.dataset.milliseconds = String(Math.round(performance.now() - began));
      await new Promise((done) => setTimeout(done, 300));  // whoever still types is not kept waiting
      if (!waiting) {
        const whole = Object.assign(await ask("trace", {text, whole: true}), {asked: text});
        if (!waiting) draw(whole);
      }
    } while (waiting);
  } catch (error) {
    said.textContent = error.message;
  } finally {
    busy = false;
  }
}

function start() {
  main.replaceChildren(el("h1", {}, "The glass"),
    el("p", {class: "soft"}, "One post on its way to a label. Press a name to see its numbers, its formula and its code."));
  if (frozen.live) {
    box.value = frozen.text;
    box.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(update, 40); });
    main.append(el("label", {for: "post"}, "Post"), box, said, body);
    update();
  } else {
    main.append(el("p", {class: "post", dir: "auto"}, visible(frozen.text)), body);
    draw(frozen);
  }
}

start();
