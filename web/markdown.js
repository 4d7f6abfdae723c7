// A small, safe part of Markdown: paragraphs, headings, lists, code, emphasis.
// Everything becomes nodes by textContent, so that nothing a model writes is ever read as HTML.

const FENCE = /^\s*(```+|~~~+)\s*([\w+#.-]*)\s*$/;
const HEADING = /^(#{1,6})\s+(.*)$/;
const BULLET = /^\s*[-*+]\s+(.*)$/;
const NUMBERED = /^\s*\d+[.)]\s+(.*)$/;
const INLINE = /(`+)([\s\S]+?)\1(?!`)|\*\*(?=\S)([\s\S]+?)(?<=\S)\*\*|(?<![\w*])\*(?=[^\s*])([\s\S]+?)(?<=[^\s*])\*(?![\w*])/;

/** Fills `target` with the nodes for `text`. An open code fence, as in a stream, counts as closed at the end. */
export function renderMarkdown(target, text) {
  target.replaceChildren(...blocks(text.split("\n")));
}

function blocks(lines) {
  const nodes = [];
  for (let at = 0; at < lines.length;) {
    const take = [takeFence, takeHeading, takeList, takeParagraph].find((rule) => rule.starts(lines[at]));
    at = take(lines, at, nodes);
  }
  return nodes;
}

function takeFence(lines, at, nodes) {
  const [, fence, language] = lines[at].match(FENCE);
  const closes = (line) => line.trim().startsWith(fence) && line.trim().replaceAll(fence[0], "") === "";
  let end = at + 1;
  while (end < lines.length && !closes(lines[end])) end += 1;
  nodes.push(codeBlock(language, lines.slice(at + 1, end).join("\n")));
  return end + 1;
}
takeFence.starts = (line) => FENCE.test(line);

function takeHeading(lines, at, nodes) {
  const [, marks, text] = lines[at].match(HEADING);
  nodes.push(element(`h${Math.min(5, marks.length + 2)}`, inline(text)));
  return at + 1;
}
takeHeading.starts = (line) => HEADING.test(line);

function takeList(lines, at, nodes) {
  const rule = BULLET.test(lines[at]) ? BULLET : NUMBERED;
  const items = [];
  let end = at;
  for (; end < lines.length && rule.test(lines[end]); end += 1) {
    items.push(element("li", inline(lines[end].match(rule)[1])));
  }
  const list = element(rule === BULLET ? "ul" : "ol", items);
  if (rule === NUMBERED) list.start = Number.parseInt(lines[at], 10);
  nodes.push(list);
  return end;
}
takeList.starts = (line) => BULLET.test(line) || NUMBERED.test(line);

function takeParagraph(lines, at, nodes) {
  const special = (line) => [takeFence, takeHeading, takeList].some((rule) => rule.starts(line));
  let end = at;
  while (end < lines.length && lines[end].trim() !== "" && !(end > at && special(lines[end]))) end += 1;
  if (end > at) nodes.push(element("p", inline(lines.slice(at, end).join("\n"))));
  return Math.max(end, at + 1);
}
takeParagraph.starts = () => true;

function inline(text) {
  const nodes = [];
  let rest = text;
  for (let found = rest.match(INLINE); found; found = rest.match(INLINE)) {
    const [whole, , code, strong, emphasis] = found;
    nodes.push(rest.slice(0, found.index));
    if (code !== undefined) nodes.push(element("code", [code]));
    else if (strong !== undefined) nodes.push(element("strong", inline(strong)));
    else nodes.push(element("em", inline(emphasis)));
    rest = rest.slice(found.index + whole.length);
  }
  return [...nodes, rest];
}

function codeBlock(language, text) {
  const copy = element("button", ["Copy"]);
  copy.type = "button";
  copy.className = "quiet small";
  copy.dataset.copy = "code";
  const head = element("header", [element("span", [language || "code"]), copy]);
  const block = element("div", [head, element("pre", [element("code", [text])])]);
  block.className = "code";
  return block;
}

function element(name, children) {
  const node = document.createElement(name);
  node.append(...children);
  return node;
}
