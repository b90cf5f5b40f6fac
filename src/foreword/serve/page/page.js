"use strict";
// The page of `foreword serve`: asks /v1/predict or /v1/completions, and sends feedback.
// Texts become text nodes alone: markup in them is shown, not run.

const at = (id) => document.getElementById(id);
const DAYS = 14; // lines of the table of answers that were looked at
const TEXTS = new Set(["generate", "summarize", "translate", "chat"]);
let asking = null; // the AbortController of what is being asked
let abouts = {}; // what the server says of each prompt

function make(tag, given = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...inside);
  return made;
}

function say(text, bad = false) {
  at("status").textContent = text;
  at("status").classList.toggle("bad", bad);
}

async function call(method, path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (at("key").value) headers.Authorization = `Bearer ${at("key").value}`;
  const sent = { method, headers, signal };
  if (body !== undefined) sent.body = JSON.stringify(body);
  const response = await fetch(path, sent);
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  const error = new Error(said.error?.message ?? `the server answered ${response.status}`);
  error.status = response.status;
  throw error;
}

const get = async (path) => (await call("GET", path)).json();

async function tried(work) {
  try {
    await work();
  } catch (error) {
    if (error.name === "AbortError") return say("stopped");
    if (error.status === 401) {
      at("access").open = true;
      at("key").focus();
    }
    say(error.message, true);
  }
}

// Choosing ------------------------------------------------------------------------------------

async function list() {
  let found;
  while (!found) {
    try {
      found = await get("/v1/models");
    } catch (error) {
      if (error.status !== 503) throw error;
      say(`${error.message}; waiting`);
      await new Promise((done) => setTimeout(done, 1000));
    }
  }
  const { data } = found;
  const [model, ...prompts] = data.map((each) => each.id);
  at("model").textContent = `${prompts.length} prompt${prompts.length === 1 ? "" : "s"} on ${model}`;
  const before = [at("first").value, at("second").value];
  at("first").replaceChildren(...prompts.map((name) => new Option(name, name)));
  at("second").replaceChildren(
    new Option("nothing", ""), new Option(`${model}, no prompt`, model),
    ...prompts.map((name) => new Option(name, name)),
  );
  if (prompts.includes(before[0])) at("first").value = before[0];
  if (before[1]) at("second").value = before[1];
  say(prompts.length ? "" : "the folder holds no prompts yet");
  if (prompts.length) await choose();
}

async function about(name) {
  abouts[name] ??= await get(`/v1/models/${encodeURIComponent(name)}`);
  return abouts[name];
}

async function choose() {
  const asked = at("first").value;
  const own = await about(asked);
  if (at("first").value !== asked) return; // another was chosen while this one was asked about
  const names = own.task === "chat" ? ["message"] : [...own.fields];
  if (own.task === "rank") names.push("candidates");
  const held = Object.fromEntries([...at("fields").querySelectorAll("textarea")].map((f) => [f.name, f.value]));
  at("fields").replaceChildren(...names.map((name) => make(
    "label", {}, name === "candidates" ? "candidates, one a line " : `${name} `,
    make("textarea", { name, value: held[name] ?? "", required: true }),
  )));
  at("review").hidden = own.task === "chat" || !own.feedback;
  at("waiting").replaceChildren();
  at("reviewed").replaceChildren();
  at("offered").textContent = "";
}

function typed() {
  const given = {};
  for (const field of at("fields").querySelectorAll("textarea")) {
    given[field.name] = field.name === "candidates"
      ? field.value.split("\n").filter((line) => line.trim()) : field.value;
  }
  return given;
}

// Asking --------------------------------------------------------------------------------------

async function ask(event) {
  event?.preventDefault();
  if (!at("ask").reportValidity()) return;
  const names = [at("first").value, at("second").value].filter(Boolean);
  const input = typed();
  asking?.abort();
  asking = new AbortController();
  at("stop").hidden = false;
  say("asking");
  const began = performance.now();
  const cards = names.map((name) => make("article", { "aria-busy": "true" }, make("h2", {}, name)));
  at("answers").replaceChildren(...cards);
  await tried(async () => {
    await Promise.all(names.map((name, n) => answer(cards[n], name, input, asking.signal)));
    say(`answered in ${((performance.now() - began) / 1000).toFixed(1)} s`);
  });
  cards.forEach((card) => card.removeAttribute("aria-busy"));
  at("stop").hidden = true;
}

async function answer(card, name, input, signal) {
  let own = await about(name);
  const alone = own.parent === null;
  const texts = Object.values(input);
  if (own.task === "chat" || ((alone || TEXTS.has(own.task)) && texts.length === 1)) {
    await stream(card, name, own, String(texts[0]), signal);
  } else if (alone) {
    card.append(make("p", {}, "the model alone has no task to answer these fields by"));
    return;
  } else {
    const response = await call("POST", "/v1/predict", { model: name, inputs: input }, signal);
    const { predictions: [found], model } = await response.json();
    card.firstChild.textContent = model;
    if (model !== own.version) { // another version has come since it was asked about
      delete abouts[name];
      own = await about(name);
    }
    const value = found[own.answer];
    card.append(make("p", { className: "answer" }, shown(value)));
    if (found.probabilities) card.append(bars(found.probabilities));
    if (own.feedback) card.append(correction(own, model, input, value, found.probabilities));
  }
  if (!alone) card.append(history(own));
}

const shown = (value) => value === null || value === undefined ? "not sure enough to say"
  : typeof value === "string" ? value : Array.isArray(value) ? value.join(" ") : JSON.stringify(value);

const byShare = (chances) => Object.entries(chances).sort((a, b) => b[1] - a[1]);

function bars(chances) {
  const rows = byShare(chances).slice(0, 12).map(([label, share]) => make(
    "tr", {}, make("th", { scope: "row" }, label),
    make("td", {}, make("progress", { value: share, max: 1, "aria-label": `probability of ${label}` })),
    make("td", { className: "share" }, `${(100 * share).toFixed(1)}%`),
  ));
  return make("table", {}, make("tbody", {}, ...rows));
}

async function stream(card, name, own, text, signal) {
  const place = make("p", { className: "answer text", "aria-live": "polite" });
  card.append(place);
  const chat = own.task === "chat";
  const body = chat ? { messages: [{ role: "user", content: text }] } : { prompt: text };
  if (own.parent === null) body.max_tokens = 64;
  const path = chat ? "/v1/chat/completions" : "/v1/completions";
  const response = await call("POST", path, { model: name, stream: true, ...body }, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const said = JSON.parse(line.slice(6));
      if (said.error) throw new Error(said.error.message);
      const choice = said.choices[0];
      place.append((chat ? choice?.delta.content : choice?.text) ?? "");
    }
  }
}

// Feedback ------------------------------------------------------------------------------------

function labelButtons(own, chances, chosen) {
  const labels = chances ? byShare(chances).map(([label]) => label) : own.labels ?? [];
  const first = labels.slice(0, 6).map((label) => make(
    "button", { type: "button", onclick: () => chosen(label) }, label,
  ));
  const other = make("input", { "aria-label": "another answer", placeholder: "another answer", size: 14 });
  const send = make("button", { type: "button", onclick: () => other.value.trim() && chosen(other.value.trim()) }, "Send");
  return make("div", { className: "labels", role: "group", "aria-label": "What it should be" }, ...first, other, send);
}

function correction(own, model, input, answered, chances) {
  const part = make("div", {}, make("h3", {}, "What should it be?"));
  const chosen = (label) => tried(async () => {
    const body = { model, input, answered: answered ?? undefined, label: typedAs(own, label) };
    const kept = await (await call("POST", "/v1/feedback", body)).json();
    part.replaceChildren(make("p", {}, `Kept: ${label}${kept.new_label ? " (a label that is new to it)" : ""}.`));
    say("kept; thank you");
  });
  part.append(labelButtons(own, chances, chosen));
  return part;
}

const typedAs = (own, label) => own.answer === "score" ? Number(label)
  : own.answer === "labels" ? label.split(",").map((each) => each.trim())
  : own.answer === "tags" ? label.split(/\s+/) : label;

async function review() {
  const own = await about(at("first").value);
  const found = await get(`/v1/review?model=${encodeURIComponent(own.id)}`);
  const offered = found.new_labels.map((each) => `${each.label} (${each.rows})`);
  at("reviewed").replaceChildren(...(found.reviewed.length ? [overTime(found.reviewed.slice(-DAYS))] : []));
  at("offered").textContent = [
    ...(offered.length ? [`new labels: ${offered.join(", ")}`] : []),
    ...(found.data.length ? [] : ["nothing waits; ask it something first"]),
  ].join("; ");
  at("waiting").replaceChildren(...found.data.map((each) => {
    const item = make("li", {}, make("p", { className: "asked" }, Object.values(each.input).map(shown).join("\n")),
      make("p", { className: "about" }, `${each.model} says ${shown(each[own.answer])}, ${(100 * each.probability).toFixed(0)}%`));
    item.append(labelButtons(own, each.probabilities, (label) => tried(async () => {
      await call("POST", "/v1/feedback", { model: own.id, review: each.id, label: typedAs(own, label) });
      const next = item.nextElementSibling?.querySelector("button") ?? at("more");
      item.remove();
      next.focus();
      say(`kept: ${label}`);
    })));
    return item;
  }));
}

function scored({ dev = {} }) {
  const [name, value] = Object.entries(dev).find(([key, v]) => key !== "rows" && typeof v === "number") ?? [];
  return name ? `${name} ${value.toFixed(1)}${dev.interval ? ` (${dev.interval[0].toFixed(1)} to ${dev.interval[1].toFixed(1)})` : ""}`
    + (dev.rows ? ` on ${dev.rows} dev rows` : " on dev rows") : "";
}

// How many of the answers that were looked at were right, by day: a dot on its interval.
function overTime(days) {
  const rows = days.map((each) => {
    const [low, high] = each.interval;
    const range = make("span", { className: "range" });
    const dot = make("span", { className: "dot" });
    Object.assign(range.style, { left: `${low}%`, width: `${high - low}%` });
    dot.style.left = `${each.accuracy}%`;
    return make("tr", {}, make("th", { scope: "row" }, `${each.day}, ${each.version}`),
      make("td", {}, make("div", { className: "scale", "aria-hidden": "true" }, range, dot)),
      make("td", { className: "share" }, `${each.accuracy.toFixed(0)}% of ${each.rows} (${low.toFixed(0)} to ${high.toFixed(0)})`));
  });
  return make("table", {}, make("caption", {}, "Right among the answers looked at, with the 95% interval"),
    make("tbody", {}, ...rows));
}

function history(own) {
  const name = own.id.split("@")[0];
  const facts = own.rows ? `made of ${own.rows} rows` : "";
  const kept = (own.history ?? []).map((each) => make("li", {}, [
    `${each.version}: from ${each.content ? `a rollback to ${each.content}` : `a ${each.origin === "feedback" ? "learning server" : each.origin}`}`,
    each.rows ? `${each.rows} rows` : "",
    scored(each.scores),
    each.held ? `${each.held.score}% of ${each.held.rows} rows held back`
      + (each.held.interval ? ` (${each.held.interval[0]} to ${each.held.interval[1]})` : "") : "",
    each.replaced ? `in place of ${each.replaced}` : "",
  ].filter(Boolean).join(", ")));
  const versions = (own.versions ?? []).map((number) => make("button", {
    type: "button",
    onclick: () => tried(async () => {
      const asked = `${name}@${number}`;
      if (![...at("second").options].some((each) => each.value === asked)) {
        at("second").append(new Option(asked, asked));
      }
      at("second").value = asked;
      await ask();
    }),
  }, `beside ${name}@${number}`));
  const learned = (own.learning ?? []).map((each) => make("li", {},
    `${each.time.slice(0, 16).replace("T", " ")}: ${each.new_version ?? "no new version"}, ${each.reason}`
    + (each.new === null ? "" : ` (${each.old}% before, ${each.new}% after, of ${each.held} rows)`)));
  if (own.learning_waits) learned.push(make("li", {}, `the next version waits: ${own.learning_waits}`));
  return make("details", {}, make("summary", {}, "Versions"),
    make("p", { className: "about" }, facts), make("ul", { className: "about" }, ...kept, ...learned),
    make("div", { className: "labels" }, ...versions));
}

// ---------------------------------------------------------------------------------------------

at("ask").addEventListener("submit", ask);
at("ask").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask(event);
});
at("stop").addEventListener("click", () => asking?.abort());
at("first").addEventListener("change", () => tried(choose));
at("more").addEventListener("click", () => tried(review));
at("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  abouts = {};
  tried(list);
});
tried(list);
