// Charts from a table of numbers: <figure data-chart> holds a JSON island {times: [...], series: [{name, colour, values}]}; the table
// beside it stays for those who read rather than look.
import uPlot from "uplot";

const colours = { ok: "--ok", warn: "--warn", bad: "--bad", info: "--accent", quiet: "--ink-3" };

// Colours use light-dark(), which only a real property resolves.
function colour(figure, name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${colours[name] ?? "--accent"})`;
  figure.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

function draw(figure) {
  const data = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
  const ink = colour(figure, "quiet");
  const language = document.documentElement.lang;
  const format = (options) => new Intl.DateTimeFormat(language === "en" ? "en-GB" : language, { timeZone: figure.dataset.zone || "UTC", ...options });
  const clock = format({ hour: "2-digit", minute: "2-digit" });
  const day = format({ day: "numeric", month: "short" });
  const whole = format({ day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
  const label = (seconds) => {
    const at = new Date(seconds * 1000);
    const text = clock.format(at);
    return /^00.00$/.test(text) ? day.format(at) : text;
  };
  const axis = { stroke: ink, font: "11px Inter, sans-serif", grid: { stroke: `color-mix(in srgb, ${ink} 18%, transparent)`, width: 1 }, ticks: { show: false } };
  const place = figure.querySelector("[data-chart-place]");
  place.replaceChildren();
  const chart = new uPlot({
    width: place.clientWidth,
    height: Number(figure.dataset.height ?? 200),
    cursor: { points: { size: 6 } },
    legend: { show: true, live: true },
    scales: { y: { range: (_, low, high) => [0, Math.max(high, 5)] } },
    axes: [{ ...axis, space: 70, values: (_, splits) => splits.map(label) }, { ...axis, size: 44 }],
    series: [{ label: figure.dataset.time, value: (_, seconds) => (seconds == null ? "–" : whole.format(new Date(seconds * 1000))) }, ...data.series.map((one) => {
      const stroke = colour(figure, one.colour);
      return { label: one.name, stroke, width: 1.5, points: { show: false }, fill: stroke.replace(/^rgb\((.*)\)$/, "rgba($1, .08)") };
    })],
  }, [data.times, ...data.series.map((one) => one.values)], place);
  new ResizeObserver(() => chart.setSize({ width: place.clientWidth, height: Number(figure.dataset.height ?? 200) })).observe(place);
}

function all(part) { for (const figure of part.querySelectorAll("[data-chart]")) draw(figure); }
document.addEventListener("DOMContentLoaded", () => all(document));
document.addEventListener("htmx:afterSwap", (event) => all(event.detail.elt));
new MutationObserver(() => all(document)).observe(document.documentElement, { attributeFilter: ["data-theme"] });
