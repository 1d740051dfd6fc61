// The leaves as a tree: sums of its nodes, and which leaves are asked for. Draws nothing.

const data = JSON.parse(document.getElementById("data").textContent);
const words = data.words.map(([word, tone, meaning]) => ({ word, tone, meaning }));
const tags = data.tags.map(([word, tone, meaning]) => ({ word, tone, meaning }));
const whole = words.findIndex((each) => each.word === data.whole);

// A printed name, cut at each "/" that is not escaped; none for the root.
const keysOf = (name) => name.match(/(?:[^\\/]|\\[^])+/g) || [];

const makeNode = (key, above, leaf) => ({
  key, above, leaf, // leaf: null for a node
  depth: above ? above.depth + 1 : 0,
  below: [], nodes: new Map(),
  leaves: 0, size: 0, counts: words.map(() => 0), sizes: words.map(() => 0),
  found: 0, open: false, limit: 0,
});

const root = makeNode("", null, null);
const leaves = data.leaves.map(([name, word, size, spec, tagged, facts]) => {
  const keys = keysOf(name);
  let node = root;
  for (const key of keys.slice(0, -1)) {
    let next = node.nodes.get(key);
    if (!next) {
      next = makeNode(key, node, null);
      node.nodes.set(key, next);
      node.below.push(next);
    }
    node = next;
  }
  const leaf = { name, word, size, spec: data.texts[spec], tagged, facts, text: null };
  const made = makeNode(keys.length ? keys[keys.length - 1] : "the root", node, leaf);
  leaf.node = made;
  node.below.push(made);
  for (let each = made; each; each = each.above) {
    each.leaves += 1;
    each.size += size;
    each.counts[word] += 1;
    each.sizes[word] += size;
  }
  return leaf;
});

// Siblings that are alike but for a number come in its order, in the places that they have among the others.
const inOrder = (node) => {
  const alike = new Map();
  node.below.forEach((each, at) => {
    const cut = /^(.*?)(\d{1,15})$/s.exec(each.key);
    if (!cut) return;
    const kind = `${each.leaf === null} ${cut[1]}`;
    if (!alike.has(kind)) alike.set(kind, []);
    alike.get(kind).push({ each, at, number: Number(cut[2]) });
  });
  for (const several of alike.values()) {
    const places = several.map((one) => one.at);
    several.sort((a, b) => a.number - b.number).forEach((one, at) => (node.below[places[at]] = one.each));
  }
  node.below.forEach(inOrder);
};
inOrder(root);

const pathOf = (node) => {
  const keys = [];
  for (let each = node; each.above; each = each.above) keys.unshift(each.key);
  return keys.join("/");
};

// What is asked for: parts of names, words and tags; nothing for all.
const asked = { parts: [], words: new Set(), tags: new Set() };
const isAsked = () => asked.parts.length + asked.words.size + asked.tags.size > 0;

const textOf = (leaf) => {
  if (leaf.text === null) {
    const said = [leaf.name, leaf.spec, words[leaf.word].word, ...leaf.tagged.map((each) => tags[each].word)];
    leaf.text = said.join(" ").toLowerCase();
  }
  return leaf.text;
};

const isFound = (leaf) =>
  (!asked.words.size || asked.words.has(leaf.word)) &&
  (!asked.tags.size || leaf.tagged.some((each) => asked.tags.has(each))) &&
  asked.parts.every((part) => textOf(leaf).includes(part));

// Counts below each node the leaves that are asked for; gives their number.
const look = () => {
  const clear = (node) => {
    node.found = 0;
    node.below.forEach(clear);
  };
  clear(root);
  for (const leaf of leaves) {
    if (!isFound(leaf)) continue;
    for (let each = leaf.node; each; each = each.above) each.found += 1;
  }
  return root.found;
};

// As reports print them.
const number = (value) => value.toLocaleString("en-US");
const counted = (value, one, many) => `${number(value)} ${value === 1 ? one : many}`;
const bytes = (value) => {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (value >= size * 10 || (value >= size && unit !== "k")) return `${(value / size).toFixed(1)} ${unit}B`;
  }
  return `${number(value)} B`;
};

// An element with attributes and children; texts are put in as texts, whatever they hold.
const make = (tag, attributes, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
};
