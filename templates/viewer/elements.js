// HTML and SVG elements. Text becomes text nodes only, so a name with markup is a name.

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Record<string, string | number | boolean | null | undefined | ((event: any) => void)>} Attributes */

function fill(
  /** @type {Element} */ element,
  /** @type {Attributes} */ attributes,
  /** @type {(Node | string | null | false)[]} */ children,
) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== undefined && value !== null && value !== false)
      element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child || child === "") element.append(child);
  return element;
}

function html(
  /** @type {string} */ name,
  /** @type {Attributes} */ attributes = {},
  /** @type {(Node | string | null | false)[]} */ ...children
) {
  return /** @type {HTMLElement} */ (fill(document.createElement(name), attributes, children));
}

function svg(
  /** @type {string} */ name,
  /** @type {Attributes} */ attributes = {},
  /** @type {(Node | string | null | false)[]} */ ...children
) {
  return /** @type {SVGElement} */ (fill(document.createElementNS(SVG, name), attributes, children));
}

/** Text that fits a width, its middle cut out: paths differ at both ends. */
function fitted(/** @type {string} */ text, /** @type {number} */ width, /** @type {number} */ letter) {
  const most = Math.max(3, Math.floor(width / letter));
  const letters = visible(text);
  if (letters.length <= most) return letters;
  const head = Math.ceil((most - 1) / 2);
  return `${letters.slice(0, head)}…${letters.slice(letters.length - (most - 1 - head))}`;
}

/** A name without control and direction marks, which would reorder the text around it. */
function visible(/** @type {string} */ text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}]/gu, "");
}
