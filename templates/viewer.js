"use strict";
// Pan and zoom for the drawings of a page. Without it they are plain pictures that scroll.
for (const viewer of document.querySelectorAll(".viewer")) {
  const canvas = viewer.querySelector(".canvas");
  const svg = canvas.querySelector("svg");
  const chosen = viewer.querySelector(".chosen");
  const whole = svg.viewBox.baseVal;
  const all = { x: whole.x, y: whole.y, width: whole.width, height: whole.height };
  let view = { ...all };

  const show = () => svg.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
  const scale = () => Math.min(canvas.clientWidth / view.width, canvas.clientHeight / view.height);
  const move = (dx, dy) => {
    view.x += dx / scale();
    view.y += dy / scale();
    show();
  };
  const zoom = (factor, at = { x: view.x + view.width / 2, y: view.y + view.height / 2 }) => {
    const least = Math.min(all.width, all.height, 80) / 2;
    if (view.width * factor < least || view.width * factor > all.width * 8) return;
    view.x = at.x - (at.x - view.x) * factor;
    view.y = at.y - (at.y - view.y) * factor;
    view.width *= factor;
    view.height *= factor;
    show();
  };
  // A drawing much taller than its window starts at the top in a size that can be read.
  const start = () => {
    view = { ...all };
    const room = canvas.clientWidth / canvas.clientHeight;
    if (scale() < 0.6 && all.height > all.width) {
      const width = Math.max(all.width, canvas.clientWidth);
      view = { x: all.x - (width - all.width) / 2, y: all.y, width, height: width / room };
    }
    show();
  };
  const fit = () => {
    view = { ...all };
    show();
  };
  const point = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  const choose = (node) => {
    for (const old of svg.querySelectorAll(".selected")) old.classList.remove("selected");
    if (!node) return;
    node.classList.add("selected");
    chosen.textContent = node.querySelector("title")?.textContent ?? "";
  };

  viewer.classList.add("live");
  viewer.querySelector(".tools").hidden = false;
  // As tall as the drawing at the width there is, but never taller than most of the window.
  const size = Math.min(1.34, canvas.clientWidth / all.width);
  canvas.style.height = `${Math.max(180, Math.min(all.height * size + 16, window.innerHeight * 0.72))}px`;
  svg.removeAttribute("width");
  svg.removeAttribute("height");
  start();

  const deeds = { in: () => zoom(0.8), out: () => zoom(1.25), fit };
  for (const button of viewer.querySelectorAll("button")) {
    button.addEventListener("click", () => deeds[button.dataset.do]());
  }
  canvas.addEventListener("keydown", (event) => {
    const step = 60;
    const keys = {
      ArrowLeft: () => move(-step, 0), ArrowRight: () => move(step, 0),
      ArrowUp: () => move(0, -step), ArrowDown: () => move(0, step),
      "+": deeds.in, "=": deeds.in, "-": deeds.out, 0: fit, Home: start,
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.15 : 1 / 1.15, point(event));
  }, { passive: false });

  let last = null;
  let moved = false;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    last = event;
    moved = false;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    if (!moved && Math.hypot(event.clientX - last.clientX, event.clientY - last.clientY) < 4) return;
    if (!moved) canvas.setPointerCapture(event.pointerId);
    moved = true;
    move(last.clientX - event.clientX, last.clientY - event.clientY);
    last = event;
  });
  const release = () => { last = null; };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("click", (event) => {
    if (!moved) choose(event.target.closest("g.node, g.cluster"));
  });
}
