// One chart: a figure with uPlot's drawing, the guard's marks on its time axis, and its numbers as a table.
const HEIGHT = 230
const NARROW = 480
const AXES = { step: "step", arm: "step of the seed" }
const COLOURS = 6

const make = (name, className, text) => {
  const element = document.createElement(name)
  if (className) element.className = className
  if (text !== undefined) element.textContent = text
  return element
}

// light-dark() stays a function in a custom property; an element's colour is what it comes to.
function resolved(names) {
  const probe = make("span")
  document.body.append(probe)
  const found = names.map(name => {
    probe.style.color = `var(${name})`
    return getComputedStyle(probe).color
  })
  probe.remove()
  return found
}

const short = value => (value === null || value === undefined ? "–" : Number(value.toPrecision(4)).toString())
const faint = css => css.replace("rgb(", "rgba(").replace(")", ", 0.16)")

export class Chart {
  constructor(place, told, marks) {
    this.told = told
    this.marks = told.axis === "step" ? marks : []
    this.figure = make("figure", "chart")
    const caption = make("figcaption", "", told.title)
    if (told.unit) caption.append(make("small", "", told.unit))
    this.plot = make("div", "plot")
    this.note = make("p", "mark-note")
    this.note.setAttribute("role", "status")
    this.figure.append(caption)
    if (told.hint) this.figure.append(make("p", "hint", told.hint))
    this.figure.append(this.plot)
    if (this.marks.length) this.figure.append(this.note)
    this.figure.append(this.table())
    place.append(this.figure)
    this.drawn = this.draw()
    this.watcher = new ResizeObserver(() => {
      const width = this.plot.clientWidth
      if (width && width !== this.chart.width) this.chart.setSize({ width, height: HEIGHT })
    })
    this.watcher.observe(this.plot)
  }

  // The curves on one row of steps, each followed by the ends of its interval where it has one.
  data() {
    return uPlot.join(
      this.told.curves.map(curve => [curve.steps, curve.values, ...(curve.low ? [curve.low, curve.high] : [])]),
      this.told.curves.map(curve => [0, 0, ...(curve.low ? [0, 0] : [])]),
    )
  }

  draw() {
    const before = this.chart?.scales.x
    this.chart?.destroy()
    const colours = resolved(Array.from({ length: COLOURS }, (_, number) => `--series-${number + 1}`))
    const [soft, line] = resolved(["--soft", "--line"])
    const series = [{ label: AXES[this.told.axis], value: (_, value) => String(value ?? "–") }]
    const bands = []
    this.told.curves.forEach((curve, number) => {
      const stroke = colours[number % COLOURS]
      const place = series.length
      const points = curve.steps.length < 60
      series.push({
        label: curve.label,
        stroke,
        width: 1.75,
        dash: number >= COLOURS ? [6, 4] : undefined,
        spanGaps: true,
        points: { show: points, size: 5 },
        value: (chart, value, _, at) => this.valueOf(chart, place, Boolean(curve.low), value, at),
      })
      if (curve.low) {
        series.push({ label: `${curve.label}, from`, class: "bound", width: 0, spanGaps: true, points: { show: false } })
        series.push({ label: `${curve.label}, to`, class: "bound", width: 0, spanGaps: true, points: { show: false } })
        bands.push({ series: [place + 2, place + 1], fill: faint(stroke) })
      }
    })
    const axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px system-ui, sans-serif" }
    const fits = { range: (_, low, high) => (low === high ? [low - 0.5, high + 0.5] : [low, high]) }
    return new Promise(done => {
      this.chart = new uPlot(
        {
          width: this.plot.clientWidth || NARROW,
          height: HEIGHT,
          series,
          bands,
          scales: { x: { time: false, ...fits }, y: { range: (_, low, high) => around(low, high) } },
          axes: [{ ...axis, size: 32 }, { ...axis, size: 56, values: (_, ticks) => ticks.map(short) }],
          cursor: { sync: { key: this.told.axis, setSeries: false }, drag: { x: true, y: false, dist: 5 }, points: { size: 6 } },
          legend: { live: true, markers: { width: 0, fill: (chart, number) => chart.series[number].stroke?.(chart, number) ?? soft } },
          hooks: { setScale: [() => this.placeMarks()], setSize: [() => this.placeMarks()], setCursor: [chart => this.tellMark(chart)], ready: [() => { this.addMarks(); done() }] },
        },
        this.data(),
        this.plot,
      )
      if (before?.min !== undefined && before.min !== null && this.isZoomed(before)) this.chart.setScale("x", before)
    })
  }

  isZoomed({ min, max }) {
    const steps = this.chart.data[0]
    return min > steps[0] || max < steps[steps.length - 1]
  }

  valueOf(chart, place, hasInterval, value, at) {
    if (value === null || value === undefined) return "–"
    const [low, high] = hasInterval && at !== null ? [chart.data[place + 1][at], chart.data[place + 2][at]] : []
    return low === undefined || low === null ? short(value) : `${short(value)} (${short(low)} to ${short(high)})`
  }

  addMarks() {
    this.shown = this.marks.map(mark => {
      const element = make("div", "chart-mark")
      element.title = mark.text
      this.chart.over.append(element)
      return { ...mark, element }
    })
    this.placeMarks()
  }

  placeMarks() {
    for (const { step, element } of this.shown ?? []) {
      const left = this.chart.valToPos(step, "x")
      element.hidden = !(left >= 0 && left <= this.chart.over.clientWidth)
      element.style.left = `${left}px`
    }
  }

  tellMark(chart) {
    const { left } = chart.cursor
    const near = (this.shown ?? []).find(({ step }) => left >= 0 && Math.abs(chart.valToPos(step, "x") - left) < 8)
    if (this.note.textContent !== (near?.text ?? "")) this.note.textContent = near?.text ?? ""
  }

  // Adds points behind those that are there; what is zoomed in to stays so.
  add(told) {
    const isZoomed = this.isZoomed(this.chart.scales.x) // before the arrays grow, which uPlot shares
    for (const curve of told.curves) {
      const mine = this.told.curves.find(({ label }) => label === curve.label)
      if (!mine) {
        this.told.curves.push(curve)
        this.draw()
        continue
      }
      for (const name of ["low", "high"]) {
        if (curve[name]) mine[name] ??= mine.steps.map(() => null)
        mine[name]?.push(...(curve[name] ?? curve.steps.map(() => null)))
      }
      mine.steps.push(...curve.steps)
      mine.values.push(...curve.values)
    }
    const data = this.data()
    if (data.length !== this.chart.series.length) return this.draw()
    this.chart.setData(data, !isZoomed)
    if (isZoomed) this.chart.redraw()
  }

  table() {
    const details = make("details")
    const box = make("div", "scroll")
    box.tabIndex = 0
    details.append(make("summary", "", "Numbers"), box)
    details.addEventListener("toggle", () => {
      box.replaceChildren()
      if (!details.open) return
      const table = make("table")
      const head = table.createTHead().insertRow()
      for (const { label } of this.chart.series) head.append(make("th", "", label))
      const body = table.createTBody()
      this.chart.data[0].forEach((step, place) => {
        const row = body.insertRow()
        for (const column of this.chart.data) row.append(make("td", "number", column[place] ?? ""))
      })
      box.append(table)
    })
    return details
  }

  remove() {
    this.watcher.disconnect()
    this.chart.destroy()
    this.figure.remove()
  }
}

// From 0 where nothing is below it and it is not far away; a little air above; never an empty range.
function around(low, high) {
  if (low === null || high === null) return [0, 1]
  const span = high - low || Math.abs(high) || 1
  const bottom = low >= 0 && low < span * 2 ? 0 : low - span * 0.08
  return [bottom, high + span * 0.08]
}
