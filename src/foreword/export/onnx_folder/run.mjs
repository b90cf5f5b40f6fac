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
  for await (const line of lines) console.log(JSON.stringify(await answer(JSON.parse(line))));
} catch (error) {
  console.error(error.message);
  process.exitCode = 2;
}
