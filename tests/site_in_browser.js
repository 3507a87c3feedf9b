// What a reader of the open page would meet: returns measurements, judges nothing.
const visible = element => {
  const box = element.getBoundingClientRect(), style = getComputedStyle(element);
  return box.width > 1 && box.height > 1 && style.visibility === "visible" && !element.closest("[aria-hidden=true]:not(.katex-html)");
};
const channels = colour => {
  const numbers = colour.match(/[\d.]+/g).map(Number);
  if (colour.startsWith("color(srgb")) return [...numbers.slice(0, 3).map(x => 255 * x), numbers[3] ?? 1];
  return [numbers[0], numbers[1], numbers[2], numbers[3] ?? 1];
};
const over = (top, below) => top.slice(0, 3).map((x, i) => x * top[3] + below[i] * (1 - top[3])).concat(1);
const backgrounds = new Map();
const background = element => {
  if (!element) return [255, 255, 255, 1];
  if (!backgrounds.has(element)) {
    const own = channels(getComputedStyle(element).backgroundColor);
    backgrounds.set(element, own[3] === 1 ? own : over(own, background(element.parentElement)));
  }
  return backgrounds.get(element);
};
const luminance = colour => {
  const linear = colour.slice(0, 3).map(x => x / 255).map(x => (x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const opacity = element => (element ? Number(getComputedStyle(element).opacity) * opacity(element.parentElement) : 1);

const pale = {}, seen = new Set(), text = [];
let texts = 0, least = 21;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode, element = node.parentElement;
  if (!node.data.trim() || element.closest("script, style, noscript, template, .katex-mathml")) continue;
  if (!element.closest("pre, code, .highlight")) text.push(node.data);
  if (seen.has(element)) continue;
  seen.add(element);
  if (!visible(element)) continue;
  const style = getComputedStyle(element), below = background(element), own = channels(style.color);
  own[3] *= opacity(element);
  const [a, b] = [luminance(over(own, below)), luminance(below)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
  const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  texts += 1;
  least = Math.min(least, large ? ratio * 1.5 : ratio);
  if (ratio < (large ? 3 : 4.5)) pale[`${element.tagName}.${element.className}`] = `${ratio.toFixed(2)} ${node.data.trim().slice(0, 30)}`;
}
const images = [...document.images].map(image => [image.getAttribute("src"), image.alt, image.complete && image.naturalWidth > 0]);
const wide = [...document.querySelectorAll("body *")].filter(element => {
  for (let around = element.parentElement; around; around = around.parentElement)
    if (getComputedStyle(around).overflowX !== "visible") return false;
  return visible(element) && element.getBoundingClientRect().right > innerWidth + 1;
});
return {
  contrast: {texts, least, pale},
  images,
  formulas: document.querySelectorAll(".katex").length,
  failed: document.querySelectorAll(".katex-error, .math:not(:has(.katex))").length,
  text: text.join(" "),
  scroll: document.documentElement.scrollWidth,
  wide: wide.slice(0, 5).map(element => `${element.tagName}.${element.className}`),
  tabindex: [...document.querySelectorAll("[tabindex]")].filter(element => element.tabIndex > 0).length,
  lang: document.documentElement.lang,
  headings: [...document.querySelectorAll("main h1, article h1")].length,
};
