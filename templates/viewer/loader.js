"use strict";
// Unpacks the style and the script of the graph viewer. The page's policy names the script's hash.

/** The value of a block that `data_block` of `reportgen/viewer/page_data.py` wrote. */
async function readBlock(/** @type {string} */ id) {
  const element = document.getElementById(id);
  if (!element) return null;
  const packed = atob(JSON.parse(element.textContent ?? "{}").deflated);
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
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
