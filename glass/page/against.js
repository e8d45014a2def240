// Two of anything: A is what stands above, B another model, another post, or both; layer by layer, and where they part.

const PLACES = {"input_norm.out": "the norm before attention", "queries.q": "queries", "keys.k": "keys", "values.v": "values",
  "attention.out": "what attention takes in", "attention_write.residual": "the residual stream after attention",
  "mlp_norm.out": "the norm before the MLP", "mlp.product": "the MLP’s inside", "mlp.residual": "the residual stream after the MLP"};

function againstSection(data, state) {
  const section = el("section", {"aria-labelledby": "h-against"}, el("h2", {id: "h-against"}, "Two of anything"),
    frozen.live ? againstChoice(data, state) : null);
  const {what, text} = state.against;
  const found = frozen.live && !what && !text ? null : data.against;
  if (!found) {
    section.append(el("p", {class: "soft"}, !frozen.live ? "Nothing was compared; --against and --against-text do it." : what || text ?
      LATER : "Choose another model, type another post, or both: the two are then compared layer by layer."));
    return section;
  }
  const same = found.text === data.text;
  section.append(el("p", {}, el("strong", {}, "A"), data.learnt && frozen.live ? " is what stands above, after the steps of learning. " :
    " is what stands above. ", el("strong", {}, "B"), " is ", el("bdi", {}, found.words), ", with ",
    same ? "the same post." : "this post:"), same ? "" : posted(found.text), same ? "" : theirTokens(found),
    partedList(data, found), el("div", {class: "wide"}, bothLabels(data, found), tokensApart(data, found)),
    layersApart(data, found), found.updates ? twoAdapters(found) : "");
  return section;
}

// Which model and which post B has; Python is asked at every change.
function againstChoice(data, state) {
  const chosen = state.against;
  const what = el("select", {id: "against-what"}, ...[["", "the same model"], ...Object.entries(frozen.offered)].map(
    ([value, words]) => el("option", {value, selected: value === chosen.what}, words)));
  const text = el("textarea", {id: "against-text", dir: "auto", lang: "", spellcheck: "false", maxlength: 20000, class: "short",
    placeholder: "the same post"});
  text.value = chosen.text;
  const sentence = el("select", {id: "against-sentence"}, el("option", {value: ""}, "choose a language"),
    ...(data.tax ? data.tax.languages : []).map((one) => el("option", {value: one.text, selected: one.text === chosen.text}, one.name)));
  const change = () => { Object.assign(chosen, {what: what.value, text: text.value, own: false}); compare(); };
  what.addEventListener("change", change);
  text.addEventListener("input", () => { chosen.text = text.value; clearTimeout(timer); timer = setTimeout(compare, 300); });
  sentence.addEventListener("change", () => { if (sentence.value) { text.value = sentence.value; change(); } });
  return el("div", {class: "fields"}, el("label", {for: "against-what"}, "B’s model"), what,
    el("label", {for: "against-text"}, "B’s post"), text,
    data.tax ? el("label", {for: "against-sentence"}, "or the example in") : null, data.tax ? sentence : null);
}

function theirTokens(found) {
  const own = found.tokens.map((token, place) => [token, place]).filter(([token]) => token.part === "post");
  return el("div", {"data-stage": "against.tokens"}, el("p", {class: "soft"}, `${own.length} tokens`),
    tokenRow("the tokens of B’s post", own, -1, "against.tokens"));
}

function partedList(data, found) {
  const {differs: [layer, place], residual, reading, share} = found.parted;
  const one = (stage, ...words) => el("li", {"data-stage": stage}, ...words);
  const name = found.names[place];
  const labels = reading < 0 ? [] : found.layers[reading].reading.map((row) => data.labels[row.indexOf(Math.max(...row))]);
  const moved = found.words === "the same model" && found.tokens.length !== data.tokens.length && name === "queries.q" && layer === 0;
  return el("div", {}, el("h3", {}, "Where they part"), el("ul", {class: "plain"},
    one("against.parted", layer < 0 ? "No number at the answer’s token differs at all." : el("span", {}, "The first numbers at the " +
      "answer’s token that differ at all: ", el("strong", {}, `${PLACES[name]} of layer ${layer}`), moved ? "; the rows are of " +
      "different length, so the answer stands at another place and its query is turned by another angle." : ".")),
    one(residual < 0 ? "against.parted" : `against.${residual}`, ...(residual < 0
      ? [`After no layer is the residual stream more than ${share} of its length apart.`]
      : [`The first layer after which the residual stream is more than ${share} of its length apart: `,
        el("strong", {}, `layer ${residual}`), ` (${number(found.layers[residual].distances.at(-1))}).`])),
    one("against.parted", ...(reading < 0 ? ["After every layer the same label would be read."]
      : ["The first layer after which another label would be read: ", el("strong", {}, `layer ${reading}`), ` (A ${labels[0]}, B ${labels[1]}).`]))),
  el("div", {class: "layer"}, el("div", {class: "steps"}, stageButton(data, "against.parted"), stageButton(data, "against.tokens"),
    stageButton(data, "against.labels"), found.updates ? stageButton(data, "against.updates") : null)));
}

function bothLabels(data, found) {
  const rows = [["A", found.probabilities[0], "against.labels"], ["B", found.probabilities[1], "against.labels"]];
  if (found.updates && data.adapter) rows.push(["A’s base", data.adapter.probabilities[0], "factors"]);
  const grid = el("div", {class: "labels both"});
  data.labels.forEach((label, index) => {
    grid.append(el("bdi", {class: "name whole"}, label));
    for (const [side, values, stage] of rows) grid.append(el("span", {class: "soft"}, side), bar(values[index], 1, kind(index)),
      el("span", {class: "n", "data-stage": stage}, number(values[index])));
  });
  return el("div", {}, el("h3", {}, "The labels of both"), rows.length > 2 ? el("p", {class: "soft"}, "A’s base is A with its adapter off.") : null, grid);
}

// The residual stream's distance at every token that both rows have, a line for each layer.
function tokensApart(data, found) {
  const rows = found.layers.filter((layer) => layer.tokens).map((layer) => layer.tokens);
  const [first, last] = found.shared;
  if (!rows.length || !rows[0].length) return el("div", {});
  const place = (column) => column < first ? column : data.tokens.length - last + (column - first);
  const same = first === data.tokens.length;
  const {box, said} = heatmap(rows, {label: `how far the residual stream is apart, ${rows.length} layers by ${rows[0].length} tokens`,
    strength: Math.sqrt, stage: (row) => `against.${row}`,
    say: (row, column) => [`after layer ${row}, place ${place(column)} (${data.tokens[place(column)].part}) `,
      el("bdi", {}, `“${visible(data.tokens[place(column)].text)}”`), `: ${number(rows[row][column])} apart`]});
  return el("div", {}, el("h3", {}, "Token by token"), el("p", {class: "soft", "data-stage": "against.tokens"}, (same ? "Both rows have the same tokens." :
    `Both rows begin with the same ${first} tokens and end with the same ${last}; what lies between belongs to one post alone and ` +
    "is left out here. What stands ahead of a post is computed before it is read, so it can differ only if the model does.") +
    " A line for each layer but the last, which computes the answer’s token alone; the redder, the further apart."), box, said);
}

function layersApart(data, found) {
  const way = el("div", {class: "way"});
  found.layers.forEach((layer, index) => {
    const stage = `against.${index}`, most = Math.max(...layer.heads);
    const all = el("table", {class: "full"}, el("thead", {}, el("tr", {}, columnHead({}, "what"), columnHead({}, ""),
      columnHead({class: "n"}, "distance; share moved"))), ...found.names.map((name, place) => el("tr", {}, el("th", {scope: "row"}, PLACES[name]),
      el("td", {class: "barred"}, bar(layer.distances[place], 1)), el("td", {class: "n"}, number(layer.distances[place])))),
    ...layer.heads.map((value, head) => el("tr", {}, el("th", {scope: "row"}, `attention weights of head ${head}`),
      el("td", {class: "barred"}, bar(value, 1)), el("td", {class: "n"}, number(value)))));
    way.append(el("div", {class: "layer"}, el("h3", {}, `Layer ${index}`), el("div", {class: "steps"}, stageButton(data, stage)),
      el("div", {class: "bars", "data-stage": stage},
        el("span", {class: "what"}, "residual stream"), bar(layer.distances.at(-1), 1), el("span", {class: "n"}, number(layer.distances.at(-1))),
        el("span", {class: "what"}, `attention, head ${layer.heads.indexOf(most)}`), bar(most, 1), el("span", {class: "n"}, number(most)),
        ...["A", "B"].flatMap((side, place) => reading(data, `${side}: if reading stopped`, layer.reading[place], stage))),
      fold(stage, "every tensor and every head", framed(`distances in layer ${index}`, stage, all))));
  });
  return el("div", {}, el("h3", {}, "Layer by layer"), el("p", {class: "soft"}, "At the token at which the label is read: how far B " +
    "is from A, as a share of A’s length; of the attention weights, those of the head that changed most, the share that moved to other tokens; and the labels’ probabilities if reading stopped there, from left to right as in the key. A bar is full at one."),
  legend(data.labels), way);
}

function twoAdapters(found) {
  const most = Math.max(...found.updates.flatMap((one) => one.spectra.flat()));
  const shown = (angles) => angles.filter((angle) => angle !== null);
  const cells = (angles, does) => [el("td", {class: "barred"}, columns(shown(angles), 90, `degrees between what both ${does}`)),
    el("td", {class: "n"}, shown(angles).length ? `${angles[0].toFixed(2)}°` : "none")];
  return el("div", {}, el("h3", {}, "The two adapters"), el("p", {class: "soft"}, "For each linear: the singular values of both updates, " +
    "their cosine, and the angles between the directions that both write and that both read, beside the smallest of these: at zero " +
    "degrees a direction is in both, at ninety in one alone."),
  framed("two adapters", "against.updates", el("table", {class: "full named stacked seven"},
    el("thead", {}, el("tr", {}, ...["linear", "A", "B", "cosine", "written", "", "read", ""].map((word, place) =>
      columnHead({class: place === 3 ? "n" : null}, word)))),
    el("tbody", {}, ...found.updates.map((one) => el("tr", {}, el("th", {scope: "row"}, one.name),
      ...one.spectra.map((values, side) => el("td", {class: "barred"}, columns(values, most, `singular values of ${"AB"[side]}`))), el("td", {class: "n"}, number(one.cosine)),
      ...cells(one.writes, "write"), ...cells(one.reads, "read")))))));
}
