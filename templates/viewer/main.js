// Starts the viewer when the page has its data.

async function startViewer() {
  const root = document.getElementById("graph-viewer");
  if (!root) return;
  const [graphs, page] = await Promise.all([readBlock("graph-data"), readBlock("module-data")]);
  if (!graphs?.length) return;
  const modules = moduleFacts(page?.modules ?? []);
  root.hidden = false;
  document.body.classList.add("has-viewer"); // the pictures are for print then
  const viewer = new GraphViewer(
    root,
    graphs.map((/** @type {any} */ each) => new Graph(each, modules)),
    { findings: page?.findings ?? [], figures: page?.figures ?? {}, remarks: page?.remarks ?? [] },
  );
  const links = new Map();
  for (const { graph } of [...viewer.states].reverse()) {
    for (const cluster of graph.layouts[0].ids) if (cluster) links.set(cluster, makeLink(graph.name, cluster));
    for (const node of graph.nodes) if (node.module) links.set(node.module, makeLink(graph.name, node.module));
  }
  linkRows(links, (place) => {
    const state = viewer.states.find(({ graph }) => graph.find(place) !== undefined);
    return links.get(place) ?? (state && makeLink(state.graph.name, place));
  });
  const follow = () => {
    if (viewer.follow(location.hash)) root.scrollIntoView({ block: "nearest" });
  };
  addEventListener("hashchange", follow);
  follow();
  Object.assign(window, { graphViewer: viewer });
}

startViewer();
