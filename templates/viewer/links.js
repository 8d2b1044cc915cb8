// Links that restore what was seen: #graph=onnx&node=layer1.0/Add&open=layer1,layer1.0

const LONGEST_LINK = 1800;

/** @returns {{graph: string, node: string, open: string[]} | null} */
function readLink(/** @type {string} */ hash) {
  if (!hash.startsWith("#graph=")) return null;
  const values = new URLSearchParams(hash.slice(1));
  return {
    graph: values.get("graph") ?? "",
    node: values.get("node") ?? "",
    open: (values.get("open") ?? "").split(",").filter(Boolean),
  };
}

function makeLink(/** @type {string} */ graph, /** @type {string} */ node, /** @type {string[]} */ open = []) {
  const text = (/** @type {string} */ value) => encodeURIComponent(value).replace(/%2F/g, "/");
  const start = `#graph=${text(graph)}${node ? `&node=${text(node)}` : ""}`;
  const end = open.length ? `&open=${open.map(text).join(",")}` : "";
  return start.length + end.length < LONGEST_LINK ? start + end : start;
}
