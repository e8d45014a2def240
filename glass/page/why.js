// Why this label: what is left of its probability without each token and word, beside the gradient's word.

function whySection(data, state) {
  const section = el("section", {"aria-labelledby": "h-why"}, el("h2", {id: "h-why"}, "Why this label"));
  if (!data.why) {
    section.append(el("p", {class: "soft"}, data.tax ? "No token is the post’s own, so nothing can be left out." : frozen.live ? LATER : NEVER));
    return section;
  }
  const {most} = data.why;
  const label = data.labels[state.why] === undefined ? data.why.label : state.why, now = data.probabilities[label];
  const choose = el("select", {id: "why", onchange: (event) => { state.why = Number(event.target.value); state.draw(); }},
    ...data.labels.map((name, index) => el("option", {value: index, selected: index === label}, name)));
  const characters = [...data.text];
  const words = (data.why.words || []).map((word) => ({text: characters.slice(word.start, word.end).join(""),
    without: word.without[label], all: word.without}));
  const tokens = data.why.tokens.map((token) => ({...token, without: token.without[label], all: token.without,
    text: data.tokens[token.place].text}));
  const lost = Math.max(...[...words, ...tokens].map((one) => Math.abs(one.without - now)));
  const [word, token] = [words, tokens].map((rows) => rows.reduce((a, b) => (b.without < a.without ? b : a), rows[0]));
  const named = (what, one, stage) => !one ? null : one.without < now ?
    el("li", {"data-stage": stage}, `Without the ${what} “`, el("strong", {}, quoted(one.text)),
      `”, which spoke most for it, ${number(one.without)} is left; the post is then `, ...answerWithout(data, one), ...ofMarks(what, one.text)) :
    el("li", {}, `No ${what} spoke for it: without any one of them, the label becomes more probable.`);
  const steepest = label === data.why.label ? Math.max(...tokens.map((token) => Math.abs(token.slope))) : undefined;
  section.append(el("div", {class: "choice"}, el("label", {for: "why"}, "show what speaks for"), choose),
    el("ul", {class: "plain"}, named("word", word, "without_words"), named("token", token, "without_tokens")),
    el("p", {class: "soft", "data-stage": "probabilities"}, "The probability of “", el("a", {href: "#h-labels"}, el("bdi", {}, data.labels[label])),
    `” is ${number(now)}. Without a word or token that spoke for it, less is left (bar to the right); without one that spoke ` +
    "against it, more (to the left); a bar is full at what its column’s head says. " + (steepest === undefined ? "The gradient was computed for the model’s own answer alone." :
    "Gradient × input asks something else: to the right, a little more of the token’s vector, as it stands, would help the label. The " +
    "two need not agree: a small change and taking the whole token out lead along different ways.") + " Without a word, the rest is written anew and cut " +
    "into tokens again; without a token, the others stay as they are.",
    Math.max(words.length, tokens.length) < most ? null : ` The post is long: at most its first ${most} words and its first ${most} tokens were taken out.`),
  el("div", {class: "wide"},
    whyTable("word", words, "without_words", now, lost),
    whyTable("token", tokens, "without_tokens", now, lost, steepest)),
  el("div", {class: "layer"}, el("div", {class: "steps"}, ...["without_words", "without_tokens", "gradient"]
    .filter((name) => data.stages.some((stage) => stage.name === name)).map((name) => stageButton(data, name)))));
  return section;
}

// What speaks for a label, from the button beside it.
function showWhy(state, index) {
  state.why = index;
  state.draw();
  document.getElementById("why").focus({preventScroll: true});
  document.getElementById("h-why").scrollIntoView();
}

// Why a full stop, a comma or a quotation mark can be what a label hangs on.
function ofMarks(what, text) {
  return what !== "token" || /[\p{L}\p{N}\p{M}]/u.test(text) ? [] : [" A mark is a token like any other: it is computed from all tokens ahead of it, " +
    "so what they say can be read from it further on. The first and the last one may also hold the prompt’s quotation mark; without that, the row is unlike " +
    "those that the run was trained on."];
}

// The label that is most probable without a word or token: the same, or another.
function answerWithout(data, one) {
  const answer = data.labels[one.all.indexOf(Math.max(...one.all))];
  return [answer === data.label ? "still “" : "“", el("bdi", {}, answer), "”."];
}

function whyTable(what, rows, stage, now, lost, steepest) {
  const slopes = steepest !== undefined;
  const full = (most) => `±${Number(most.toPrecision(2))}`;  // where a bar is full
  const head = [what, "without it", `lowers, raises it: ${full(lost)}`, ...(slopes ? [`gradient × input, ${full(steepest)}`, ""] : [])];
  return framed(`each ${what}`, null, el("table", {class: "why"},
    el("thead", {}, el("tr", {}, ...head.map((word, place) =>
      columnHead({class: place % 2 ? "n" : null, "data-stage": place === 2 ? stage : place === 3 ? "gradient" : null}, word)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, el("th", {scope: "row", class: "word"}, quoted(row.text)),
      el("td", {class: "n", "data-stage": stage}, number(row.without)), el("td", {class: "barred"}, bar(now - row.without, lost, null, true)),
      slopes ? el("td", {class: "n", "data-stage": "gradient"}, number(row.slope)) : null,
      slopes ? el("td", {class: "barred"}, bar(row.slope, steepest, null, true)) : null)))));
}
