// One switch folds and unfolds all code; the table of contents marks the section that is read.
const codes = [...document.querySelectorAll("details.code")];
const button = document.getElementById("code-switch");
const label = () => {
  const all = codes.every((code) => code.open);
  button.setAttribute("aria-pressed", all);
  button.textContent = all ? "Hide all code" : "Show all code";
};
button.hidden = codes.length === 0;
button.addEventListener("click", () => {
  const open = button.getAttribute("aria-pressed") !== "true";
  codes.forEach((code) => { code.open = open; });
});
codes.forEach((code) => code.addEventListener("toggle", label));

const contents = document.querySelector("nav details");
if (contents) {
  if (window.matchMedia("(max-width: 70rem)").matches) contents.open = false;
  const links = new Map([...contents.querySelectorAll("a")].map((a) => [decodeURIComponent(a.hash.slice(1)), a]));
  const headings = [...links.keys()].map((id) => document.getElementById(id));
  const mark = () => {
    const read = headings.filter((heading) => heading.getBoundingClientRect().top < 120).pop();
    links.forEach((a, id) => {
      if (read && read.id === id) a.setAttribute("aria-current", "true");
      else a.removeAttribute("aria-current");
    });
  };
  document.addEventListener("scroll", mark, { passive: true });
  mark();
}
