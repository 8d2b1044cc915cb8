// From the rows of tables to the graph and back.

/** The row of a module in the table of layers. */
function rowOf(/** @type {string} */ module) {
  return /** @type {HTMLElement | null} */ (document.querySelector(`[data-module="${CSS.escape(module)}"]`));
}

function goToRow(/** @type {HTMLElement} */ row) {
  document.body.classList.remove("viewer-full");
  for (let each = row.parentElement; each; each = each.parentElement) {
    if (each instanceof HTMLDetailsElement) each.open = true;
  }
  row.scrollIntoView({ block: "center" });
  row.classList.add("shown");
  row.querySelector("a")?.focus({ preventScroll: true });
  setTimeout(() => row.classList.remove("shown"), 2500);
}

/**
 * A link to the graph in each row of the table of layers, and in what else names a place of it: a
 * finding, a measured module, the node at which parity breaks.
 */
function linkRows(
  /** @type {Map<string, string>} */ links,
  /** @type {(place: string) => string | undefined} */ linkOf,
) {
  const rows = /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-module], [data-place]"));
  for (const row of rows) {
    const { module, place = "" } = row.dataset;
    const link = module === undefined ? linkOf(place) : links.get(module);
    if (!link) continue;
    row.querySelector(".name, th, .where")?.append(
      html(
        "a",
        {
          class: "to-graph",
          href: link,
          title: "Show in the graph",
          "aria-label": `Show ${module ?? place} in the graph`,
        },
        "⌖",
      ),
    );
  }
}
