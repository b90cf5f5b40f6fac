// node run.mjs "a text" "another", or node run.mjs < rows.jsonl; one answer a line, in JSON.
// Needs, in this folder or one above it: npm install onnxruntime-web @huggingface/tokenizers
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { Tokenizer } from "@huggingface/tokenizers";
import * as ort from "onnxruntime-web";
import { opened } from "./prompt.mjs";

try {
  const read = (name) => readFile(new URL(name, import.meta.url));
  const { prompt, answer } = await opened(ort, Tokenizer, read);
  const texts = process.argv.slice(2);
  const lines = texts.length ? [] : createInterface({ input: process.stdin });
  for (const text of texts) console.log(JSON.stringify(await answer({ [prompt.fields[0]]: text })));
  let number = 0;
  for await (const line of lines) {
    number += 1;
    const text = line.trim(); // a byte order mark is white space here
    if (text) console.log(JSON.stringify(await answer(parsed(text, number, prompt.fields))));
  }
} catch (error) {
  console.error(error.message);
  process.exitCode = 2;
}

/** Return the row that a line is. */
function parsed(text, number, fields) {
  let row = null;
  try {
    row = JSON.parse(text);
  } catch {}
  if (row === null || typeof row !== "object" || Array.isArray(row))
    throw new Error(`line ${number} is no object in JSON; write one with ${JSON.stringify(fields)}`);
  return row;
}
