"use strict";
// Unpacks the style and the script of the graph viewer. The page's policy names the script's hash.

const DIGITS_85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;,=>?@^_`{|}~";

/** The bytes of a text in base 85, most significant digit first. */
function fromBase85(/** @type {string} */ text) {
  const values = new Uint8Array(128);
  [...DIGITS_85].forEach((digit, value) => (values[digit.charCodeAt(0)] = value));
  const missing = (5 - (text.length % 5)) % 5; // of the last five digits, and so of its four bytes
  const digits = text + "~".repeat(missing);
  const words = new DataView(new ArrayBuffer((digits.length / 5) * 4));
  for (let start = 0; start < digits.length; start += 5) {
    let word = 0;
    for (let place = start; place < start + 5; place += 1) word = word * 85 + values[digits.charCodeAt(place)];
    words.setUint32((start / 5) * 4, word);
  }
  return new Uint8Array(words.buffer, 0, words.byteLength - missing);
}

/** The value of a block that `data_block` of `reportgen/viewer/page_data.py` wrote. */
async function readBlock(/** @type {string} */ id) {
  const element = document.getElementById(id);
  if (!element) return null;
  const bytes = fromBase85(JSON.parse(element.textContent ?? "{}").deflated);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return JSON.parse(await new Response(stream).text());
}

async function loadViewer() {
  if (typeof DecompressionStream === "undefined") return; // the pictures stay
  const code = await readBlock("viewer-code");
  for (const [name, text] of code) {
    const element = document.createElement(name);
    element.textContent = text;
    document.head.append(element);
  }
}

loadViewer();
