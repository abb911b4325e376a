// Light or dark: the system's choice, or the last one of the switch if the browser keeps it.
const root = document.documentElement;
const kept = (theme) => {
  try {
    if (theme) localStorage.setItem("cifar-reports-theme", theme);
    return localStorage.getItem("cifar-reports-theme");
  } catch { return null; }
};
if (["light", "dark"].includes(kept())) root.dataset.theme = kept();

const fill = (node, attributes, children) => {
  Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
  node.append(...children);
  return node;
};
const make = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);

document.addEventListener("DOMContentLoaded", () => {
  themeSwitch();
  codeSwitch();
  contentsMark();
  figuresEnlarge();
});

function themeSwitch() {
  const button = document.getElementById("theme-switch");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const label = () => { button.title = dark() ? "Light mode" : "Dark mode"; button.setAttribute("aria-label", button.title); };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    kept(root.dataset.theme);
    label();
  });
  system.addEventListener("change", label);
  label();
  button.hidden = false;
}

// One switch folds and unfolds all code.
function codeSwitch() {
  const codes = [...document.querySelectorAll("details.code")];
  const button = document.getElementById("code-switch");
  if (!button || !codes.length) return;
  const label = () => {
    button.textContent = codes.every((code) => code.open) ? "Hide all code" : "Show all code";
  };
  button.addEventListener("click", () => {
    const open = !codes.every((code) => code.open);
    codes.forEach((code) => { code.open = open; });
  });
  codes.forEach((code) => code.addEventListener("toggle", label));
  label();
  button.hidden = false;
}

// The table of contents marks the visible section.
function contentsMark() {
  const contents = document.querySelector(".contents details");
  if (!contents) return;
  const wide = matchMedia("(min-width: 70rem)"); // then the summary is not shown
  const fold = () => { contents.open = wide.matches; };
  wide.addEventListener("change", fold);
  fold();
  const links = [...contents.querySelectorAll("a")];
  const top = (a) => document.getElementById(decodeURIComponent(a.hash.slice(1)))?.getBoundingClientRect().top;
  const mark = () => {
    const read = links.filter((a) => top(a) < 120).pop();
    links.forEach((a) => a.setAttribute("aria-current", a === read));
  };
  document.addEventListener("scroll", mark, { passive: true });
  mark();
}

// A figure opens in a dialog of the window's size; Escape or the button closes it.
function figuresEnlarge() {
  const frames = document.querySelectorAll(".report-figure .frame");
  if (!frames.length) return;
  const dialog = document.body.appendChild(make("dialog"));
  const close = make("button", { type: "button" }, "Close");
  close.addEventListener("click", () => dialog.close());
  frames.forEach((frame) => {
    const caption = frame.closest("figure").querySelector("figcaption");
    const picture = frame.querySelector("img");
    const name = (caption || {}).textContent || picture.alt || "figure";
    const button = make("button", { type: "button", class: "enlarge", "aria-label": `Enlarge: ${name.split(/[.:;](\s|$)/)[0]}` }, "⤢");
    const open = () => {
      const text = caption ? [caption.cloneNode(true)] : [];
      dialog.setAttribute("aria-label", name);
      dialog.replaceChildren(close, make("div", {}, make("div", { class: frame.className }, picture.cloneNode(true)), ...text));
      dialog.showModal();
    };
    button.addEventListener("click", open);
    picture.addEventListener("click", open);
    frame.after(button);
  });
}
