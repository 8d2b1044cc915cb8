// Everything by keyboard: move from box to box, open and close, zoom, search.

const HELP =
  "Arrow keys go to the next box (Shift moves the view), Enter opens or closes, " +
  "plus and minus zoom, 0 fits, slash searches, N and P go through what was found, " +
  "C closes the details, F fills the window, Escape deselects";

/** @param {GraphViewer} viewer */
function listenToKeys(viewer) {
  viewer.canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { view, state } = viewer;
    const step = 80;
    /** @type {Record<string, [number, number]>} */
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const arrow = arrows[event.key];
    if (arrow) {
      if (event.shiftKey) view.panBy(arrow[0] * step, arrow[1] * step);
      else viewer.selectNeighbor(arrow[0], arrow[1]);
    } else if (event.key === "Enter" || event.key === " ") {
      if (state.selected[0] === "c") viewer.toggle(Number(state.selected.slice(1)));
    } else if (event.key === "Backspace") viewer.selectAround();
    else if (event.key === "+" || event.key === "=") view.zoomBy(1.25);
    else if (event.key === "-") view.zoomBy(0.8);
    else if (event.key === "0") viewer.fit();
    else if (event.key === "Home") viewer.start();
    else if (event.key === "/") viewer.tools.searchField.focus();
    else if (event.key === "n") viewer.nextFound(1);
    else if (event.key === "p") viewer.nextFound(-1);
    else if (event.key === "c") viewer.closeCard();
    else if (event.key === "f") viewer.setFull(!document.body.classList.contains("viewer-full"));
    else if (event.key === "Escape") {
      if (state.selected || viewer.lit) viewer.select("");
      else viewer.setFull(false);
    } else return;
    event.preventDefault();
  });
}
