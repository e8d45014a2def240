// The page: frozen for one post, or live, where Python computes and this shows.

const frozen = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
const box = el("textarea", {id: "post", dir: "auto", lang: "", spellcheck: "false", maxlength: 20000});
const said = el("p", {class: "error", role: "status"});
const progress = el("p", {class: "soft", id: "progress"});
const spoken = el("p", {class: "unseen", role: "status", id: "spoken", "data-stage": "probabilities"});  // read out: that something is computed, and what came of it
const about = el("p", {class: "soft", id: "about"});
const body = el("div", {});
const state = {layer: 0, factor: 4, partFactor: 2, part: "", data: null, kept: null, draw: () => draw(state.data),
  against: {what: frozen.against_what || "", text: frozen.against_text || ""}};
let busy = false, waiting = false, timer = 0, typed = 0;

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

// A question to Python; what takes long says how far it is.
async function ask(what, content) {
  const watch = {over: false};
  tell(watch);
  try {
    return await answered(what, content);
  } finally {
    watch.over = true;
    progress.textContent = "";
    if (spoken.textContent === LATER) spoken.textContent = "computed";
  }
}

async function tell(watch) {
  await pause(500);
  while (!watch.over) {
    const now = await answered("progress", {}).catch(() => null);  // the question itself will say what is wrong
    if (!now || watch.over) return;
    spoken.textContent = LATER;
    progress.textContent = `${LATER}: layer ${now.layer} of ${now.layers}` + (now.pass > 1 ? `, pass ${now.pass}` : "");
    await pause(400);
  }
}

async function answered(what, content) {
  const answer = await fetch(what, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(content)});
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

function draw(data) {
  state.data = data;
  const open = openStage;
  const before = document.activeElement, typing = before.tagName === "TEXTAREA";
  const at = typing ? [before.selectionStart, before.selectionEnd] : [];
  about.replaceChildren(...aboutRun(data));
  body.replaceChildren(...sections(data));
  const focused = again(before);
  if (focused && focused !== before) {
    focused.focus({preventScroll: true});
    if (typing) focused.setSelectionRange(...at);  // whoever types goes on where they were
  }
  if (open) {
    const button = [...document.querySelectorAll("[data-open]")].find((node) => node.dataset.open === open);
    openStage = null;
    if (button) toggleStage(data, open, button);
  }
}

// Which run it is, how its weights are kept, which of them learned, and in which arithmetic it is computed.
function aboutRun({about: {four_bits: fourBits, adapted, dtype}, learnt}) {
  return [frozen.run ? "Run " : "A model", frozen.run ? el("bdi", {}, frozen.run) : "", fourBits ? ": base in four bits, " : ": base as its file has it, ",
    adapted.length ? "adapter on " : "no adapter", el("bdi", {}, adapted.join(", ")), "; computed in ", el("bdi", {}, dtype), ".",
    ...(frozen.live && learnt ? [el("strong", {class: "changed"}, " This is not the run as it was: learning changed it here. "),
      el("button", {type: "button", id: "undo-here", onclick: () => document.getElementById("undo").click()}, "undo a step")] : [])];
}

// The control that stands in a page drawn anew where `node` stood.
function again(node) {
  if (node.id) return document.getElementById(node.id);
  const {open} = node.dataset, {fold: name} = node.parentElement ? node.parentElement.dataset : {};
  return [...document.querySelectorAll(open ? "[data-open]" : name ? "[data-fold] > summary" : "#none")]
    .find((one) => open ? one.dataset.open === open : one.parentElement.dataset.fold === name);
}

function sections(data) {
  return [el("div", {class: "wide"}, tokensSection(data), labelsSection(data, state)), whySection(data, state),
    adapterSection(data, state), learningSection(data, state), waySection(data, state), againstSection(data, state),
    bitsSection(data)];
}

// What is being computed for an earlier text or model is wanted no more.
function leave() {
  waiting = true;
  return answered("leave", {}).catch(() => null);  // the question itself will say what is wrong
}

// One more thing about the post that is shown: the answer is the whole page with it.
async function more(what, content) {
  const {asked} = state.data;
  try {
    const found = Object.assign(await ask(what, {text: asked, ...content}), {asked});
    said.textContent = "";
    if (state.data.asked === asked) draw(found);
  } catch (error) {
    said.textContent = error.message;
  }
}

let comparing = false;

// B has changed: its part of the page is asked for again, one question after the other, until it is what is chosen.
async function compare() {
  if (busy) leave();
  if (busy || comparing || !state.data) return;
  comparing = true;
  let asked;
  do {
    asked = {...state.against};
    await more("against", {what: asked.what, other: asked.text});
  } while (asked.what !== state.against.what || asked.text !== state.against.text);
  comparing = false;
}

// The post beside B, if there is a B.
async function beside(text) {
  const {what, text: other} = state.against;
  if (waiting || !(what || other)) return;
  const both = Object.assign(await ask("against", {text, what, other}), {asked: text});
  if (!waiting) draw(both);
}

async function update() {
  if (busy) {
    leave();
    return;
  }
  busy = true;
  try {
    do {
      waiting = false;
      const text = box.value;
      const data = Object.assign(await ask("trace", {text}), {asked: text});
      if (state.against.own && !data.learnt) state.against = {what: "", text: ""};  // all steps are undone: nothing to compare
      said.textContent = "";
      body.classList.remove("former");
      draw(data);
      document.documentElement.dataset.milliseconds = String(Math.round(performance.now() - typed));  // since the last key
      for (let i = 0; i < 15 && !waiting; i++) await pause(20);  // whoever still types is not kept waiting
      if (state.against.own) await beside(text);  // what steps of learning did stands at the top, so it comes first
      for (const whole of ["why", true]) {  // what takes longer, in two parts
        if (waiting) break;
        const found = await ask("trace", {text, whole});
        waiting = waiting || Boolean(found.left);  // if another window of the same page asked, once more
        if (!waiting) draw(Object.assign(found, {asked: text}));
      }
      if (!state.against.own) await beside(text);
    } while (waiting);
    const {label, labels, probabilities} = state.data;
    spoken.textContent = `computed: ${label}, ${number(probabilities[labels.indexOf(label)])}`;
  } catch (error) {
    const former = Boolean(state.data) && state.data.asked !== box.value;
    said.textContent = error.message + (former ? "; what stands below is the previous post" : "");
    body.classList.toggle("former", former);
  } finally {
    busy = false;
  }
}

// The page for the post as a file that needs no server, as `--save` writes it.
async function save(event) {
  event.target.disabled = true;
  said.textContent = "";
  try {
    const page = (await ask("save", {text: box.value})).page;
    const link = el("a", {href: URL.createObjectURL(new Blob([page], {type: "text/html"})), download: "glass.html"});
    link.click();
    URL.revokeObjectURL(link.href);
  } catch (error) {
    said.textContent = error.message;
  }
  event.target.disabled = false;
}

function start() {
  main.replaceChildren(el("h1", {}, "The glass"),
    el("p", {class: "soft"}, "One post on its way to a label. Press a name to see its numbers, its formula and its code."), about);
  if (frozen.live) {
    box.value = frozen.text;
    box.addEventListener("input", () => {
      typed = performance.now();
      clearTimeout(timer);
      timer = setTimeout(update, 10);
    });
    main.append(el("label", {for: "post"}, "Post"), box, el("button", {type: "button", id: "save", onclick: save}, "save this page"),
      said, progress, spoken, body);
    update();
  } else {
    main.append(posted(frozen.text), spoken, body);
    draw(frozen);
  }
}

// On paper no fold can be opened: all are open while the page is printed.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  closed.forEach((one) => { one.open = true; });
});
addEventListener("afterprint", () => closed.forEach((one) => { one.open = false; }));

start();
