// The drawing as a file: all that is open, or one cluster, as SVG or PNG, with its colors.

const DRAWN = [
  "fill",
  "fill-opacity",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "stroke-opacity",
  "opacity",
  "font-size",
  "font-weight",
];

/** Save the whole drawing, or what is inside `cluster`. */
async function saveDrawing(/** @type {GraphViewer} */ viewer, /** @type {"svg" | "png"} */ format, cluster = 0) {
  const composed = viewer.composer.compose(cluster);
  const { width, height } = composed;
  const scene = new Scene(viewer.clusters, viewer.style(), viewer.state.sideways);
  const content = scene.draw(composed, { left: -1e9, top: -1e9, right: 1e9, bottom: 1e9 }, 1);
  const root = svg(
    "svg",
    {
      class: "copy",
      xmlns: SVG,
      width: width + 16,
      height: height + 16,
      viewBox: `-8 -8 ${width + 16} ${height + 16}`,
      "font-family": "Inter, sans-serif",
    },
    arrows(),
    content,
  );
  viewer.canvas.append(root); // styles are known of elements of the page only
  const paper = getComputedStyle(viewer.canvas).backgroundColor;
  for (const element of root.querySelectorAll("rect, path, text, tspan, circle")) {
    const style = getComputedStyle(element);
    for (const name of DRAWN) element.setAttribute(name, style.getPropertyValue(name));
    element.removeAttribute("style");
  }
  for (const element of root.querySelectorAll(".toggle")) element.remove();
  for (const element of root.querySelectorAll("[class]")) element.removeAttribute("class");
  root.remove();
  root.prepend(svg("rect", { x: -8, y: -8, width: width + 16, height: height + 16, fill: paper }));
  const text = new XMLSerializer().serializeToString(root);
  const part = cluster ? `-${viewer.clusters.ids[cluster]}` : "";
  const name = `${document.title.split(" – ")[0]}-${viewer.graph.name}${part}`
    .replace(/[^\p{L}\p{N}._-]+/gu, "_")
    .slice(0, 120);
  const file =
    format === "svg" ? new Blob([text], { type: "image/svg+xml" }) : await picture(text, width + 16, height + 16);
  if (!file) {
    viewer.say("This drawing is too large for a PNG; save it as SVG");
    return;
  }
  const link = html("a", { href: URL.createObjectURL(file), download: `${name}.${format}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(/** @type {HTMLAnchorElement} */ (link).href), 10000);
}

/** @returns {Promise<Blob | null>} */
async function picture(/** @type {string} */ text, /** @type {number} */ width, /** @type {number} */ height) {
  const image = new Image();
  // the page's policy allows pictures from data:, not from blob:
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const scale = Math.min(2, 12000 / width, 12000 / height, Math.sqrt(6e7 / (width * height)));
  if (scale < 0.3) return null;
  const canvas = document.createElement("canvas");
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
