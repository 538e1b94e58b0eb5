// Draws the curves of a job and keeps the page up to date while the job runs. See app/dashboard/job/curves.py.
import { Chart } from "./charts.js"

const section = document.querySelector("#curves")
const url = `/dashboard/jobs/${section.dataset.job}`
const EVERY = 1500 // milliseconds between two looks at what is new
const MOST_ADDED = 2000 // points added one by one before all is asked for again, thinned
let charts = new Map()
let marks = []
let whole = null // what was drawn last
let last = -1
let added = 0

async function ask(since) {
  const response = await fetch(`${url}/curves${since === undefined ? "" : `?since=${since}`}`)
  if (response.status === 401) location.reload()
  if (!response.ok) throw new Error(`The curves could not be read: ${response.status}.`)
  return response.json()
}

function drawAll(data) {
  performance.mark("cherry-draw-begins")
  const place = section.querySelector("[data-charts]")
  for (const chart of charts.values()) chart.remove()
  charts = new Map(data.charts.map(told => [told.key, new Chart(place, told, data.marks)]))
  marks = data.marks
  whole = data
  last = data.last
  added = 0
  const waits = section.querySelector("[data-waits]")
  waits.hidden = charts.size > 0
  waits.textContent = "There are no curves: the job has made no step."
  Promise.all([...charts.values()].map(chart => chart.drawn)).then(() => performance.measure("cherry-draw", "cherry-draw-begins"))
}

async function refresh() {
  if (last < 0 || added > MOST_ADDED) return drawAll(await ask())
  const data = await ask(last)
  const isNew = data.charts.some(told => !charts.has(told.key)) && data.last > last
  if (data.whole || isNew || data.marks.length !== marks.length) return drawAll(data.whole ? data : await ask())
  for (const told of data.charts) charts.get(told.key)?.add(told)
  added += Math.max(0, data.last - last)
  last = data.last
}

function follow() {
  const stream = new EventSource(`${url}/live?after=${section.dataset.seq}`)
  let waits = null
  const look = () => {
    waits = null
    htmx.trigger(document.body, "moved")
    refresh().catch(fail)
  }
  stream.addEventListener("message", event => {
    if (event.data === "[DONE]") {
      stream.close()
      clearTimeout(waits)
      look()
    } else {
      waits ??= setTimeout(look, EVERY)
    }
  })
}

function fail(problem) {
  const waits = section.querySelector("[data-waits]")
  waits.hidden = false
  waits.textContent = problem.message
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach(chart => chart.draw()))
addEventListener("draw-again", () => drawAll(whole)) // for `make bench-dashboard`
ask().then(drawAll).catch(fail)
if ("live" in section.dataset) follow()
