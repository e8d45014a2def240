// The tokens of the row and the probabilities of the labels.

function tokenChip(token, place, answer) {
  const css = "token" + (token.part === "post" ? " post-token" : "") + (place === answer ? " answer" : "");
  return el("span", {class: css}, quoted(token.text), el("small", {}, String(token.id)));
}

// The tokens side by side, each above its id.
function tokenRow(words, tokens, answer, stage = "tokens") {
  return el("div", {class: "tokens", "data-stage": stage, ...scrolled(words)},
    ...tokens.map(([token, place]) => tokenChip(token, place, answer)));
}

// The same as a table, which also has what is too long for a chip: the part of the row, and the bytes.
function tokenTable(tokens) {
  const rows = tokens.map((token, place) => el("tr", {}, el("td", {class: "n"}, String(place)), el("th", {scope: "row"}, quoted(token.text)),
    el("td", {}, token.part), el("td", {class: "n"}, String(token.id)), el("td", {}, token.bytes.replace(/(..)/g, "$1 ").trim())));
  return framed("every token with its bytes", "tokens", el("table", {}, el("thead", {}, el("tr", {}, ...["place", "token", "part", "id", "bytes"].map(
    (word) => columnHead({class: word === "place" || word === "id" ? "n" : null}, word)))), el("tbody", {}, ...rows)));
}

function tokensSection(data) {
  const answer = data.tokens.length - 1;
  const own = data.tokens.map((token, place) => [token, place]).filter(([token]) => token.part === "post");
  const all = fold("row", el("span", {"data-stage": "tokens"}, `the whole row, ${data.tokens.length} tokens: what the prompt added, ` +
    "and at its end where the label is read"));
  all.addEventListener("toggle", () => {
    if (all.open && !all.querySelector(".tokens")) {
      all.append(tokenRow("the whole row", data.tokens.map((token, place) => [token, place]), answer), tokenTable(data.tokens));
    }
  });
  const characters = [...data.text].length;
  const bytes = new TextEncoder().encode(data.text).length;
  return el("section", {"aria-labelledby": "h-tokens"}, el("h2", {id: "h-tokens"}, "Tokens"),
    el("p", {class: "soft", "data-stage": "tokens"}, `${characters} characters, ${bytes} bytes, ${own.length} tokens` +
      (data.cut ? "; the post was too long and lost its end" : "") + ". The first and the last token may hold the prompt’s quotation mark."),
    tokenRow("the post’s tokens", own, answer),
    all, el("div", {class: "layer"}, el("div", {class: "steps"}, stageButton(data, "tokens", "how they are made"),
      data.tax ? stageButton(data, "tax") : null)), data.tax ? taxPart(data.tax.languages) : null);
}

// What one sentence costs in each language: a bar of its tokens, and its characters and bytes.
function taxPart(languages) {
  const most = Math.max(...languages.map((one) => one.tokens)), dearest = languages.find((one) => one.tokens === most);
  const table = el("table", {class: "tight full named"}, el("thead", {}, el("tr", {}, ...["", "tokens", "", "× English", "chars", "bytes"]
    .map((word, place) => columnHead({class: place && place !== 2 ? "n" : null}, word)))),
  el("tbody", {}, ...languages.map((one) => el("tr", {}, el("th", {scope: "row"}, one.name),
    el("td", {class: "n"}, number(one.tokens)), el("td", {class: "barred"}, bar(one.tokens, most)),
    el("td", {class: "n"}, one.tax.toFixed(2)), el("td", {class: "n"}, number(one.characters)), el("td", {class: "n"}, number(one.bytes))))));
  return fold("tax", el("span", {"data-stage": "tax"}, `the tokenizer’s tax: one sentence takes ${languages[0].tokens} ` +
    `tokens in ${languages[0].name} and ${most} in ${dearest.name}`),
  framed("tokens of one sentence in each language", "tax", table),
  el("ul", {class: "plain soft"}, ...languages.map((one) => el("li", {lang: one.language}, `${one.name}: `, el("bdi", {dir: "auto"}, one.text)))));
}

// `before`: what the labels' probabilities were before any step of learning, as a thinner bar below each. `state`: where
// each label is to have a way to what speaks for it.
function labelsGrid(data, before, state) {
  const grid = el("div", {class: state ? "labels asked" : "labels", "data-stage": "probabilities"});
  data.labels.forEach((label, index) => {
    grid.append(el("bdi", {class: "name"}, label === data.label ? el("strong", {}, label) : label),
      bar(data.probabilities[index], 1, kind(index)), el("span", {class: "n"}, number(data.probabilities[index])));
    if (state) grid.append(el("button", {type: "button", class: "ask", disabled: !data.why, "aria-label": `what speaks for ${label}`,
      onclick: () => showWhy(state, index)}, "why"));
    if (before) grid.append(el("span", {class: "soft before"}, "before any step"), bar(before[index], 1, `${kind(index)} past`),
      el("span", {class: "n soft", "data-stage": "against.labels"}, number(before[index])));
  });
  return grid;
}

// How often the run is right, as its run.json says: a label is to be read with that in mind.
function measuredPart(data) {
  if (!frozen.run) return null;
  const {measured} = frozen, share = (value) => (100 * value).toFixed(1);
  return el("p", {class: "soft", id: "measured", "data-file": "run.json"}, measured ? `How often is this run right? In its last test, ${share(measured.right)} % of ` +
    `${measured.n} posts (${measured.files.join(", ")}) got the label that their file gives them; 95 % interval ${share(measured.interval[0])} to ` +
    `${share(measured.interval[1])} %.` + (frozen.live && data.learnt ? " That was before any step of learning here." : "") :
    "How often is this run right? Nobody knows yet: eval.py has not tested it.");
}

// What the steps of learning did to the label of whatever post is typed, in a sentence.
function whatSteps(data, state) {
  const before = beforeAnyStep(data, state);
  if (!before) return null;
  const then = data.labels[before.indexOf(Math.max(...before))];
  return el("p", {}, "Before any step: ", el("strong", {}, el("bdi", {}, then)), then === data.label ? ", as now." : ". Now: ",
    then === data.label ? null : el("strong", {}, el("bdi", {}, data.label)), then === data.label ? null : ".");
}

// The labels of the post by the run as its files have it, if that is what it is held against.
function beforeAnyStep(data, state) {
  const {against} = data;
  return frozen.live && data.learnt && against && state.against.what === frozen.saved && against.text === data.text ? against.probabilities[1] : null;
}

// A post that was kept stands below what is typed now, so that both can be compared.
function keptPart(data, state) {
  if (!frozen.live) return null;
  const isKept = state.kept && state.kept.text === data.text;
  const keep = el("button", {type: "button", id: "keep", onclick: () => { state.kept = data; state.against.text = data.text; state.draw(); }},
    isKept ? "kept; now type another post" : "keep this post to compare");
  if (!state.kept || isKept) return keep;
  return el("div", {}, el("h3", {}, "The post that was kept"), posted(state.kept.text),
    labelsGrid(state.kept), keep);
}

function labelsSection(data, state) {
  return el("section", {"aria-labelledby": "h-labels"}, el("h2", {id: "h-labels"}, "The label"), whatSteps(data, state), labelsGrid(data, beforeAnyStep(data, state), state),
    measuredPart(data), keptPart(data, state),
    el("div", {class: "layer"}, el("div", {class: "steps"}, stageButton(data, "final_norm"), stageButton(data, "logits"),
      stageButton(data, "probabilities"))));
}
