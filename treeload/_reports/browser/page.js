// What is asked for, buttons, and the keys of the page as a whole; last, since it starts the others.

const search = document.getElementById("search");

function copyButton(said) {
  return make("button", { type: "button", class: "copy", "aria-label": said }, "Copy");
}

const copy = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Where the browser has no clipboard for a file, or refuses it: as was done before there was one.
    const field = make("textarea", { class: "away" });
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
};

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  await copy(button.parentElement.querySelector("code").textContent);
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
});

// What is asked for.

const foundText = document.getElementById("found");

const ask = () => {
  asked.parts = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = look();
  foundText.textContent = isAsked() ? `${number(found)} of ${counted(leaves.length, "leaf", "leaves")}` : counted(leaves.length, "leaf", "leaves");
  foldAll();
  root.open = true;
  isAsked() ? unfoldTo(WHEN_ASKED) : unfoldTo(AT_FIRST, 3);
  draw();
};

const chipsOf = (id, label, all, of, count) => {
  const chips = document.getElementById(id);
  if (!all.length || (all.length < 2 && id === "words")) {
    chips.hidden = true;
    return;
  }
  chips.setAttribute("aria-label", `Only leaves of this ${label}`);
  chips.append(make("span", { class: "quiet" }, label));
  all.forEach((each, at) => {
    if (!count(at)) return;
    const chip = make("button", { type: "button", class: `chip ${each.tone}`, "aria-pressed": "false", "data-at": at, title: each.meaning },
      each.word, make("b", null, number(count(at))));
    chip.addEventListener("click", () => {
      of.has(at) ? of.delete(at) : of.add(at);
      chip.setAttribute("aria-pressed", of.has(at));
      ask();
    });
    chips.append(chip);
  });
};

chipsOf("words", data.asked[0], words, asked.words, (at) => root.counts[at]);
chipsOf("tags", data.asked[1], tags, asked.tags, (at) => leaves.filter((leaf) => leaf.tagged.includes(at)).length);

const pressedChips = () => document.querySelectorAll(".chips [aria-pressed=true]");

function clearAsked() {
  search.value = "";
  asked.words.clear();
  asked.tags.clear();
  pressedChips().forEach((chip) => chip.setAttribute("aria-pressed", "false"));
  ask();
}

for (const button of document.querySelectorAll("button.show")) {
  const at = tags.findIndex((each) => each.word === button.dataset.tag);
  if (at < 0) button.remove();
  else button.addEventListener("click", () => {
    clearAsked();
    document.querySelector(`#tags [data-at="${at}"]`).click();
    document.getElementById("leaves").scrollIntoView();
    goTo(rows[0]);
  });
}

let waiting = 0;
search.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(ask, leaves.length > 2000 ? 120 : 0);
});

search.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown") {
    event.preventDefault();
    goTo(rows[0]);
  }
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "Escape" && isAsked()) {
    clearAsked();
    search.focus();
  }
});

document.getElementById("unfold").addEventListener("click", () => {
  unfoldTo(AT_MOST);
  draw();
});

document.getElementById("fold").addEventListener("click", () => {
  foldAll();
  root.open = true;
  draw();
});

// Both sides of a problem, with what they differ in.

for (const both of document.querySelectorAll(".problem .both")) {
  const sides = [...both.querySelectorAll("dd")];
  if (sides.length < 2) continue;
  differing(...sides.map((side) => side.textContent)).forEach((made, at) => sides[at].replaceChildren(made));
}

// Colours.

const theme = document.getElementById("theme");
const THEMES = { Auto: "as the system has them", Light: "light", Dark: "dark" };
theme.addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(theme.textContent.slice(2)) + 1) % names.length];
  theme.textContent = `◐ ${next}`;
  theme.setAttribute("aria-label", `Colours: ${THEMES[next]}`);
  document.documentElement.dataset.theme = next.toLowerCase();
});

document.documentElement.classList.add("with-script");
ask();
drawMap();
// How long it took until the page could be used, in milliseconds.
document.documentElement.dataset.ready = Math.round(performance.now());
