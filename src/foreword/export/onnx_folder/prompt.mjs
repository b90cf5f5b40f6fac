// Answers with the prompt of a folder, in Node and in browsers, as run.py does.

/** Return a function that answers a row of fields. `read` gives a file of the folder by its name. */
export async function opened(ort, Tokenizer, read) {
  const text = async (name) => new TextDecoder().decode(await read(name));
  const prompt = JSON.parse(await text("prompt.json"));
  const tokenizer = new Tokenizer(JSON.parse(await text("tokenizer.json")), {});
  const externalData = [];
  for (const path of prompt.external) externalData.push({ path, data: await read(path) });
  const session = await ort.InferenceSession.create(await read("model.onnx"), {
    executionProviders: ["wasm"],
    externalData,
  });
  const answer = prompt.kind === "texts" ? written : labelled;
  return { prompt, answer: (row) => answer(ort, session, prompt, tokenizer, row) };
}

/** Return the token ids of a row of fields. */
export function tokens(prompt, tokenizer, row) {
  let ids = [];
  for (const piece of prompt.pieces) {
    if (piece.ids) ids = ids.concat(piece.ids);
    else {
      const parts = piece.text.map((part) => (typeof part === "string" ? part : value(row, part)));
      const text = piece.end ? parts.join("").replace(/ +$/, "") : parts.join("");
      if (text) ids = ids.concat(tokenizer.encode(text, { add_special_tokens: false }).ids);
    }
  }
  const { head, first, limit } = prompt;
  if (first.every((token, n) => token === ids[n])) ids = ids.slice(first.length);
  ids = [...head, ...ids];
  if (!ids.length) ids = first;
  if (ids.length > limit)
    throw new Error(`a row takes ${ids.length} tokens, of at most ${limit}; shorten it`);
  return ids;
}

// What Python's strip takes for white space.
const SPACE = "(?:(?!\\ufeff)\\s|[\\x1c-\\x1f\\x85])+";

function value(row, { field, left, right }) {
  const given = row[field];
  if (!["string", "number", "boolean"].includes(typeof given))
    throw new Error(`a row has no text '${field}'`);
  const said = given === true ? "True" : given === false ? "False" : String(given); // as in Python
  const text = left ? said.replace(new RegExp(`^${SPACE}`), "") : said;
  return right ? text.replace(new RegExp(`${SPACE}$`), "") : text;
}

function whole(ort, numbers, shape) {
  return new ort.Tensor("int64", BigInt64Array.from(numbers, BigInt), shape);
}

/** Return the answer to a row, with the probability of every label where it has. */
async function labelled(ort, session, prompt, tokenizer, row) {
  const ids = tokens(prompt, tokenizer, row);
  const given = await session.run({ input_ids: whole(ort, ids, [1, ids.length]) });
  const numbers = Array.from(given[session.outputNames[0]].data);
  const found = Object.fromEntries(prompt.numbers.map((name, n) => [name, numbers[n]]));
  if (prompt.answer === "score") return found;
  if (prompt.answer === "labels") {
    const labels = prompt.numbers.filter((name) => found[name] >= prompt.thresholds[name]);
    return { labels, probabilities: found };
  }
  return { label: prompt.numbers[numbers.indexOf(Math.max(...numbers))], probabilities: found };
}

/** Return the text that the model writes after a row, token by token. */
async function written(ort, session, prompt, tokenizer, row) {
  const [names, given, said] = [session.inputNames, {}, []];
  for (const [n, [heads, width]] of prompt.past.entries())
    given[names[1 + n]] = new ort.Tensor("float32", new Float32Array(0), [1, heads, 0, width]);
  const decoded = () => tokenizer.decode(said, { skip_special_tokens: true });
  let ids = tokens(prompt, tokenizer, row);
  while (said.length < prompt.max_new_tokens) {
    const found = await session.run({ ...given, input_ids: whole(ort, ids, [1, ids.length]) });
    session.outputNames.slice(1).forEach((name, n) => (given[names[1 + n]] = found[name]));
    const logits = found.logits.data.subarray(0, prompt.vocabulary);
    const token = logits.reduce((best, score, n) => (score > logits[best] ? n : best), 0);
    if (prompt.ends.includes(token)) break;
    said.push(token);
    ids = [token];
    if (prompt.stop.some((stop) => decoded().includes(stop))) break;
  }
  let text = decoded();
  const places = prompt.stop.map((stop) => text.indexOf(stop)).filter((place) => place >= 0);
  text = text.slice(0, places.length ? Math.min(...places) : undefined).trim();
  return { text: (text.startsWith(prompt.opening) ? text.slice(prompt.opening.length) : text).trim() };
}
