"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const main = document.getElementById("main");
  const codes = new Map(Object.entries(data.codes).map(([row, label]) => [Number(row), label]));
  let at = 0, busy = false, open = false, keys = true;  // open: a post is shown, so keys code it, unless they are off

  const make = (tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };
  const next = () => {
    for (let n = 1; n <= data.posts.length; n++) {
      const row = (at + n) % data.posts.length;
      if (!codes.has(row)) return row;
    }
    return null;
  };
  const ask = async (what, content) => {
    const answer = await fetch(what, {method: "POST", headers: {"Content-Type": "application/json"},
                                      body: JSON.stringify(content)});
    const found = await answer.json().catch(() => ({error: "the program has ended; start it again to continue"}));
    if (!answer.ok) throw new Error(found.error || "refused");
    return found;
  };
  const fail = (error) => {
    document.querySelectorAll(".error").forEach((one) => one.remove());
    const words = error instanceof TypeError ? "the program has ended; start it again to continue" : error.message;
    const said = make("p", "Not saved: " + words, "error");
    said.role = "alert";
    main.append(said);
  };

  const code = async (number) => {
    if (busy || !open) return;
    busy = true;
    const again = next() === null;  // all are coded: this one is looked at again
    try {
      await ask("code", {row: at, label: data.labels[number].name});
      codes.set(at, data.labels[number].name);
      const row = next() ?? (again && at + 1 < data.posts.length ? at + 1 : null);
      if (row !== null) at = row;
      if (row === null) await done(); else show();
    } catch (error) { fail(error); } finally { busy = false; }
  };
  const go = (step) => {
    if (busy) return;
    if (!open) step = 0;  // back from the end to the last post
    at = Math.max(0, Math.min(data.posts.length - 1, at + step));
    show();
  };

  const show = () => {
    const post = data.posts[at];
    open = true;
    main.replaceChildren();
    document.title = `${codes.size} of ${data.posts.length} coded`;
    main.append(make("h1", `${data.coder}: post ${at + 1} of ${data.posts.length}, ${codes.size} coded`));
    const bar = make("progress");
    bar.max = data.posts.length;
    bar.value = codes.size;
    bar.ariaLabel = "posts coded";
    main.append(bar);
    if (data.question) main.append(make("p", data.question, "question"));
    const text = make("div", post.text, "post");
    text.lang = post.language;
    text.dir = "auto";
    text.tabIndex = -1;
    main.append(text);
    for (const [name, value] of Object.entries(post.more)) main.append(make("p", `${name}: ${value}`, "more"));
    const list = make("div", undefined, "labels");
    data.labels.forEach((label, number) => {
      const button = make("button");
      button.ariaPressed = String(codes.get(at) === label.name);
      button.append(make("kbd", data.keys[number]), document.createTextNode(label.name));
      if (label.definition) button.append(make("span", label.definition, "definition"));
      button.addEventListener("click", () => code(number));
      list.append(button);
    });
    main.append(list);
    const way = make("div", undefined, "way");
    for (const [key, words, act] of [["←", "back", () => go(-1)], ["→", "on, without a label", () => go(1)]]) {
      const button = make("button");
      button.append(make("kbd", key), document.createTextNode(words));
      button.addEventListener("click", act);
      way.append(button);
    }
    main.append(way, switchOf());
    text.focus({preventScroll: true});  // what is read out is the new post, and the tabulator leads to its labels
  };

  // Whoever dictates, or holds keys down without meaning to, turns the keys off.
  const switchOf = () => {
    const box = make("input"), words = make("label", undefined, "keys");
    box.type = "checkbox";
    box.checked = keys;
    box.addEventListener("change", () => { keys = box.checked; });
    words.append(box, "keys give labels and move on");
    return words;
  };

  const done = async () => {
    const found = await ask("end", {});
    open = false;
    document.title = "All coded";
    const title = make("h1", `All ${data.posts.length} posts are coded. Thank you.`);
    title.tabIndex = -1;
    main.replaceChildren(title);
    for (const line of found.lines) main.append(make("p", line));
    main.append(make("p", "You can close this page and end the program with Ctrl-C.", "more"));
    const button = make("button", "look at the codes again");
    button.addEventListener("click", () => { at = 0; show(); });
    main.append(button);
    title.focus();
  };

  document.addEventListener("keydown", (event) => {
    if (!keys || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    const number = data.keys.indexOf(event.key.toLowerCase());
    if (number >= 0 && number < data.labels.length) { event.preventDefault(); code(number); }
    if (event.key === "ArrowLeft") go(-1);
    if (event.key === "ArrowRight") go(1);
  });
  if (codes.has(at) && next() !== null) at = next();
  if (next() === null) done().catch(fail); else show();
})();
