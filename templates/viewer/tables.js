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

/** A link to the graph in each row that names a module of it. */
function linkRows(/** @type {Map<string, string>} */ links) {
  for (const row of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-module]"))) {
    const module = row.dataset.module ?? "";
    const link = links.get(module);
    if (!link) continue;
    row.querySelector(".name, th, .where")?.append(
      html(
        "a",
        {
          class: "to-graph",
          href: link,
          title: "Show in the graph",
          "aria-label": `Show ${module} in the graph`,
        },
        "⌖",
      ),
    );
  }
}
