// Draws the curves of several jobs over each other, with one cursor for all charts.

const COLOURS = ["--cherry", "--blue", "--green", "--amber", "--violet", "--teal"];
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 5], [1, 4]];
const HEIGHT = 240;

function colour(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function data(lines) {
  return uPlot.join(lines.map((line) => [line.map((point) => point[0]), line.map((point) => point[1])]));
}

function axis(extra) {
  return { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, ...extra };
}

function draw(place, chart, jobs) {
  const shown = chart.lines.map((line, number) => ({ line, number })).filter((one) => one.line.length);
  const options = {
    width: place.clientWidth,
    height: HEIGHT,
    scales: { x: { time: false } },
    cursor: { sync: { key: "compare", setSeries: false } },
    axes: [axis({ label: "step", labelSize: 18 }), axis({ size: 60 })],
    series: [
      { label: "step" },
      ...shown.map(({ number }) => ({
        label: jobs[number],
        stroke: colour(COLOURS[number]),
        dash: DASHES[number],
        width: 1.8,
        spanGaps: true,
      })),
    ],
  };
  return new uPlot(options, data(shown.map((one) => one.line)), place);
}

async function start(root) {
  const response = await fetch(root.dataset.curves, { headers: { accept: "application/json" } });
  if (!response.ok) return;
  const told = await response.json();
  let plots = [];
  const all = () => {
    for (const plot of plots) plot.destroy();
    plots = [...root.querySelectorAll("[data-chart]")].map((place) => draw(place, told.charts[place.dataset.chart], told.jobs));
  };
  all();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  addEventListener("resize", () => {
    for (const plot of plots) plot.setSize({ width: plot.root.parentElement.clientWidth, height: HEIGHT });
  });
}

for (const root of document.querySelectorAll("[data-curves]")) start(root);
