// The tree on the page: rows of what is unfolded, made anew when that changes; details of a leaf; keys.

const BRANCH = 60; // rows of one node before the others have to be asked for
const AT_FIRST = 40; // rows that are unfolded at first
const WHEN_ASKED = 200; // rows that are unfolded of what is searched for
const AT_MOST = 1500; // rows of "Unfold all"

const tree = document.getElementById("tree");
let rows = []; // what is shown: nodes, and { more: node } where a node has more than is shown
let current = null; // what has the focus

const shownBelow = (node) => node.below.filter((each) => each.found > 0);

// Unfolds from the top until there are so many rows. Where a level has too many, those of its nodes that have
// problems; then all that there is room for, or just a few where it is not asked for.
const unfoldTo = (most, few = Infinity) => {
  const isBad = (node) => node.counts.some((count, at) => count && words[at].tone === "bad");
  let count = shownBelow(root).length;
  let level = shownBelow(root);
  while (level.length && count < most) {
    const next = [];
    level = level.filter((each) => each.leaf === null);
    const all = level.reduce((sum, each) => sum + Math.min(shownBelow(each).length, BRANCH), 0);
    if (count + all > most) {
      level.sort((a, b) => isBad(b) - isBad(a));
      if (few < Infinity) level = level.filter(isBad).slice(0, few);
    }
    for (const node of level) {
      const below = shownBelow(node);
      const adds = Math.min(below.length, BRANCH);
      if (count + adds > most) continue;
      node.open = true;
      count += adds;
      next.push(...below.slice(0, BRANCH));
    }
    level = next;
  }
};

const foldAll = (node = root) => {
  node.open = false;
  node.limit = BRANCH;
  node.below.forEach(foldAll);
};

const listRows = () => {
  rows = [];
  const list = (node) => {
    const below = shownBelow(node);
    const shown = below.length > node.limit + 1 ? node.limit : below.length; // one row more is no longer
    for (const each of below.slice(0, shown)) {
      rows.push(each);
      if (each.open && each.leaf === null) list(each);
    }
    if (below.length > shown) rows.push({ more: node, left: below.length - shown, depth: node.depth + 1 });
  };
  list(root);
};

const draw = (focus = false) => {
  listRows();
  if (!rows.includes(current)) current = rows.find((each) => current && each.more && each.more === current.more) || rows[0];
  tree.replaceChildren(...rows.map(rowOf));
  if (!rows.length) tree.replaceChildren(make("p", { class: "quiet" }, leaves.length ? "No leaf is what you ask for." : "No leaves."));
  if (focus && current) current.row.querySelector(".line").focus({ preventScroll: false });
};

const rowOf = (each) => {
  const item = each.more ? moreRow(each) : each.leaf === null ? nodeRow(each) : leafRow(each);
  each.row = item;
  item.setAttribute("role", "none");
  item.style.setProperty("--depth", Math.min(each.depth - 1, 12));
  const line = item.querySelector(".line");
  line.setAttribute("role", "treeitem");
  line.setAttribute("aria-level", each.depth);
  line.tabIndex = each === current ? 0 : -1;
  line.addEventListener("click", () => {
    current = each;
    act(each);
  });
  return item;
};

const act = (each) => {
  if (each.more) {
    const at = rows.indexOf(each);
    each.more.limit += 10 * BRANCH;
    listRows();
    current = rows[at];
  } else each.open = !each.open;
  draw(true);
};

const moreRow = (each) =>
  make("div", { class: "row more" }, make("div", { class: "line" }, make("span", { class: "twist" }), `show more: ${number(each.left)} are left`));

const nodeRow = (node) => {
  const said = whole < 0 ? counted(node.leaves, "leaf", "leaves") : ofWhole(node);
  const line = make("div", { class: "line", "aria-expanded": node.open },
    make("span", { class: "twist", "aria-hidden": "true" }),
    make("span", { class: "name" }, marked(node.key), "/"),
    make("span", { class: "facts" }, miniBar(node), make("span", { class: "said" }, said)),
    make("span", { class: "size" }, bytes(node.size)));
  return make("div", { class: "row node" }, line);
};

const ofWhole = (node) => {
  const outside = words.findIndex((each) => each.tone === "unused");
  const strange = outside < 0 ? 0 : node.counts[outside];
  const own = node.leaves - strange;
  const said = own ? [`${number(node.counts[whole])} of ${number(own)} ${data.whole}`] : [];
  if (strange) said.push(`${number(strange)} not used`);
  return said.join(", ");
};

const leafRow = (node) => {
  const leaf = node.leaf;
  const word = words[leaf.word];
  const line = make("div", { class: "line", "aria-expanded": node.open, title: word.meaning },
    make("span", { class: "twist", "aria-hidden": "true" }),
    make("span", { class: "name" }, marked(node.key)),
    make("span", { class: "facts" },
      make("span", { class: `chip ${word.tone}` }, word.word),
      ...leaf.tagged.map((each) => make("span", { class: `chip outlined ${tags[each].tone}`, title: tags[each].meaning }, tags[each].word)),
      make("code", { class: "spec" }, leaf.spec)),
    make("span", { class: "size" }, bytes(leaf.size)));
  return make("div", { class: "row leaf" }, line, node.open ? detailsOf(leaf) : null);
};

// A bar of what becomes of the leaves of a node, by bytes, or by their number where they have none.
const miniBar = (node) => {
  const sizes = node.size ? node.sizes : node.counts;
  const total = sizes.reduce((sum, each) => sum + each, 0);
  const bar = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  bar.setAttribute("class", "bar mini");
  bar.setAttribute("viewBox", "0 0 100 10");
  bar.setAttribute("preserveAspectRatio", "none");
  bar.setAttribute("aria-hidden", "true");
  let start = 0;
  sizes.forEach((size, at) => {
    if (!node.counts[at] || !total) return;
    const length = Math.max((100 * size) / total, 2);
    const piece = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    piece.setAttribute("class", words[at].tone);
    piece.setAttribute("x", Math.min(start, 98));
    piece.setAttribute("width", length);
    piece.setAttribute("height", 10);
    bar.append(piece);
    start += length;
  });
  return bar;
};

// A text with what is searched for in it marked.
const marked = (text) => {
  const made = document.createDocumentFragment();
  const small = text.toLowerCase();
  let at = 0;
  while (small.length === text.length) {
    const next = asked.parts
      .map((part) => [small.indexOf(part, at), part.length])
      .filter(([where]) => where >= 0)
      .sort(([a], [b]) => a - b)[0];
    if (!next) break;
    made.append(text.slice(at, next[0]), make("mark", null, text.slice(next[0], next[0] + next[1])));
    at = next[0] + next[1];
  }
  made.append(text.slice(at));
  return made;
};

// Details.

const detailsOf = (leaf) => {
  const facts = [];
  for (let at = 0; at < leaf.facts.length; at += 2) {
    facts.push([data.texts[leaf.facts[at]], data.texts[leaf.facts[at + 1]]]);
  }
  const sides = data.sides.map((side) => facts.find(([label]) => label === side));
  const both = sides.every((side) => side !== undefined);
  const rest = both ? facts.filter((each) => !sides.includes(each)) : facts;
  const [a, b] = both ? differing(sides[0][1], sides[1][1]) : [];
  return make("div", { class: "details" },
    make("div", { class: "whole" }, make("div", { class: "code" },
      make("pre", null, make("code", null, leaf.name || "the root")), copyButton("Copy this name"))),
    both ? make("dl", { class: "both" },
      make("div", null, make("dt", null, sides[0][0]), make("dd", null, a)),
      make("div", null, make("dt", null, sides[1][0]), make("dd", null, b))) : null,
    make("dl", null, ...rest.flatMap(([label, text]) => [make("dt", null, label), make("dd", null, text)]),
      make("dt", null, "bytes"), make("dd", null, number(leaf.size))));
};

// Two specs, with the parts that are not the same marked.
const differing = (one, other) => {
  const cut = (text) => text.split(/([[\],])/).filter((each) => each !== "");
  const [a, b] = [cut(one), cut(other)];
  const alike = a.length === b.length;
  const side = (mine, theirs) =>
    make("code", null, ...mine.map((each, at) => (alike && each !== theirs[at] ? make("mark", { class: "differs" }, each) : each)));
  if (alike) return [side(a, b), side(b, a)];
  const kept = (mine, theirs) => {
    const [head, inside] = [mine.slice(0, mine.indexOf("[")), mine.slice(mine.indexOf("["))];
    const same = theirs.startsWith(`${head}[`);
    return make("code", null, same ? head : make("mark", { class: "differs" }, head), make("mark", { class: "differs" }, inside));
  };
  const plain = (text) => (text.includes("[") ? null : make("code", null, text));
  return [plain(one) || kept(one, other), plain(other) || kept(other, one)];
};

// Keys.

const goTo = (each) => {
  if (!each) return;
  const line = (one) => one.row.querySelector(".line");
  if (current && current.row) line(current).tabIndex = -1;
  current = each;
  line(each).tabIndex = 0;
  line(each).focus();
};

const pressed = {
  ArrowDown: (at) => goTo(rows[at + 1]),
  ArrowUp: (at) => goTo(rows[at - 1]),
  Home: () => goTo(rows[0]),
  End: () => goTo(rows[rows.length - 1]),
  Enter: (at) => act(rows[at]),
  " ": (at) => act(rows[at]),
  ArrowRight: (at) => {
    const each = rows[at];
    if (each.more || !each.open) act(each);
    else if (each.leaf === null) goTo(rows[at + 1]);
  },
  ArrowLeft: (at) => {
    const each = rows[at];
    if (!each.more && each.open) act(each);
    else goTo(rows.find((one) => one === (each.more || each.above)));
  },
  "*": (at) => {
    const above = rows[at].more || rows[at].above;
    for (const each of shownBelow(above)) if (each.leaf === null) each.open = true;
    draw(true);
  },
};

tree.addEventListener("keydown", (event) => {
  const at = rows.indexOf(current);
  if (at < 0 || event.ctrlKey || event.metaKey || event.altKey || !event.target.classList.contains("line")) return;
  const does = pressed[event.key];
  if (!does) return;
  event.preventDefault();
  does(at);
});

// Unfolds all that is above a node, so that it is a row, and goes there.
const reveal = (node) => {
  for (let each = node.above; each; each = each.above) {
    each.open = true;
    const at = shownBelow(each).findIndex((one) => one === node || isAbove(one, node));
    each.limit = Math.max(each.limit, at + 1);
  }
  if (node.leaf !== null) node.open = true;
  current = node;
  draw(true);
  node.row.scrollIntoView({ block: "center" });
};

const isAbove = (one, node) => {
  for (let each = node.above; each; each = each.above) if (each === one) return true;
  return false;
};
