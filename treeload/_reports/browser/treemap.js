// The map of bytes: a rectangle for each part, as large as its share, coloured by what becomes of it.

const TILES = 600; // rectangles within others, in all
const PARTS = 120; // rectangles within one; the others are one more
const GAP = 2;
const HEAD = 18; // pixels for the name of a part above its own parts

const tiles = document.getElementById("tiles");
const crumbs = document.getElementById("crumbs");
let place = root; // what the map shows

// Rectangles for sizes, largest first, as near to squares as it goes (squarified treemaps, Bruls et al., 2000).
const squarify = (sizes, x, y, width, height) => {
  const found = [];
  const scale = (width * height) / sizes.reduce((sum, each) => sum + each, 0);
  let at = 0;
  while (at < sizes.length) {
    const side = Math.min(width, height);
    let sum = 0, worst = Infinity, end = at;
    while (end < sizes.length) {
      const area = (sum + sizes[end]) * scale;
      const long = Math.max((side * side * sizes[at] * scale) / area ** 2, area ** 2 / (side * side * sizes[end] * scale));
      if (long > worst) break;
      worst = long;
      sum += sizes[end];
      end += 1;
    }
    const thick = (sum * scale) / side;
    let along = 0;
    for (; at < end; at += 1) {
      const length = (sizes[at] * scale) / thick;
      found.push(width >= height ? [x, y + along, thick, length] : [x + along, y, length, thick]);
      along += length;
    }
    if (width >= height) [x, width] = [x + thick, width - thick];
    else [y, height] = [y + thick, height - thick];
  }
  return found;
};

const sized = (node) => node.below.filter((each) => each.size > 0).sort((a, b) => b.size - a.size);

const drawMap = () => {
  if (!root.size) {
    document.getElementById("map").hidden = true;
    return;
  }
  const width = tiles.clientWidth, height = tiles.clientHeight;
  if (!width) return;
  let room = TILES;
  const drawn = document.createDocumentFragment();
  let within = []; // parts that may be looked into: all of one depth, or none
  const lay = (node, x, y, w, h, depth) => {
    const all = sized(node);
    const parts = all.slice(0, PARTS);
    const rest = all.slice(PARTS).reduce((sum, each) => sum + each.size, 0);
    const sizes = parts.map((each) => each.size);
    if (rest) sizes.push(Math.min(rest, sizes[sizes.length - 1]));
    squarify(sizes, x, y, w, h).forEach(([left, top, wide, high], at) => {
      const part = parts[at];
      if (wide < 3 || high < 3) return;
      const inner = part && part.leaf === null && wide > 52 && high > 44 && depth < 4;
      if (inner) within.push({ part, tile: [left, top, wide, high], depth });
      else drawn.append(tileOf(part, [left, top, wide - GAP, high - GAP], depth, false, bytes(rest)));
    });
  };
  lay(place, 0, 0, width, height, 0);
  while (within.length) {
    const outer = within;
    within = [];
    room -= outer.reduce((sum, { part }) => sum + Math.min(part.below.length, PARTS), 0);
    for (const { part, tile: [left, top, wide, high], depth } of outer) {
      drawn.append(tileOf(part, [left, top, wide - GAP, high - GAP], depth, room >= 0, ""));
      if (room >= 0) lay(part, left + GAP, top + HEAD, wide - 3 * GAP, high - HEAD - 2 * GAP, depth + 1);
    }
  }
  tiles.replaceChildren(drawn);
  drawCrumbs();
};

const tileOf = (part, [left, top, wide, high], depth, inner, rest) => {
  const said = part ? describe(part) : `others: ${rest}`;
  const tile = make(depth || !part ? "div" : "button", {
    class: `tile ${inner ? "inner" : part && part.leaf !== null ? words[part.leaf.word].tone : "mixed"}`,
    title: said, "aria-label": depth || !part ? null : said, "aria-hidden": depth ? "true" : null,
  });
  Object.assign(tile.style, { left: `${left}px`, top: `${top}px`, width: `${wide}px`, height: `${high}px` });
  if (part && !inner && part.leaf === null) tile.style.background = striped(part);
  if (wide > 34 && high > 14) {
    tile.append(make("span", null, part ? shortened(part.key, inner ? wide - 60 : wide) : "others"));
    if (wide > 60 && high > 34 && part && !inner) tile.append(make("small", null, bytes(part.size)));
    else if (inner && wide > 130) tile.firstChild.append(make("small", null, ` ${bytes(part.size)}`));
  }
  if (part && !depth) {
    tile.type = "button";
    tile.addEventListener("click", () => (part.leaf === null ? goInto(part) : showLeaf(part)));
  }
  return tile;
};

// What a key ends with tells it from its siblings, where there is no room for the whole.
const shortened = (key, wide) => {
  const room = Math.floor((wide - 10) / 8);
  return key.length > room && /\d$/.test(key) ? `…${key.slice(1 - Math.max(room, 4))}` : key;
};

const describe = (part) => {
  const said = words.map((each, at) => (part.counts[at] ? `${number(part.counts[at])} ${each.word}` : "")).filter(Boolean);
  const what = part.leaf === null ? said.join(", ") : `${part.leaf.spec}, ${words[part.leaf.word].word}`;
  return `${pathOf(part)}: ${bytes(part.size)}, ${what}`;
};

const striped = (node) => {
  let start = 0;
  const stops = node.sizes.flatMap((size, at) => {
    if (!size) return [];
    const from = start;
    start += (100 * size) / node.size;
    return [`var(--${words[at].tone}-fill) ${from}% ${start}%`];
  });
  return `linear-gradient(90deg, ${stops.join(", ")})`;
};

const goInto = (node) => {
  place = node;
  drawMap();
  const first = crumbs.querySelector("[aria-current]");
  if (first) first.focus();
};

const showLeaf = (node) => {
  clearAsked();
  reveal(node);
};

const drawCrumbs = () => {
  const way = [];
  for (let each = place; each; each = each.above) way.unshift(each);
  crumbs.replaceChildren(...way.flatMap((each, at) => {
    const button = make("button", { type: "button", class: "plain", "aria-current": each === place ? "true" : null },
      each === root ? `all ${bytes(root.size)}` : each.key);
    button.addEventListener("click", () => goInto(each));
    return at ? [make("span", { class: "quiet" }, "/"), button] : [button];
  }));
};

new ResizeObserver(() => drawMap()).observe(tiles);
