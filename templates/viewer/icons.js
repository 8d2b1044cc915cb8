// The signs on the buttons, drawn: the fonts of the page have letters only.

/** @type {Record<string, string>} */
const ICONS = {
  "open all": "M3 3h10v10H3zM8 5.5v5M5.5 8h5",
  "close all": "M3 3h10v10H3zM5.5 8h5",
  sideways: "M2 8h11M9.5 4.5L13 8L9.5 11.5",
  down: "M8 2v11M4.5 9.5L8 13L11.5 9.5",
  full: "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10",
  previous: "M3.5 10L8 5.5L12.5 10",
  next: "M3.5 6L8 10.5L12.5 6",
  plus: "M8 3v10M3 8h10",
  minus: "M3 8h10",
};

/** @returns {SVGElement | null} */
function icon(/** @type {string} */ name) {
  return name in ICONS
    ? svg(
        "svg",
        { class: "icon", viewBox: "0 0 16 16", width: 15, height: 15, "aria-hidden": "true" },
        svg("path", { d: ICONS[name] }),
      )
    : null;
}
