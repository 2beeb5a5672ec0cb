'use strict';
document.documentElement.classList.add('script');

function text(value, range) {
  const size = Math.abs(value);
  if (Number.isInteger(value)) return value.toLocaleString('en');
  if (size < 1e-4) return value.toExponential(2).replace(/\.?0*e/, 'e');
  if (size >= 1000) return value.toLocaleString('en', {maximumFractionDigits: 0});
  const fine = Math.min(6, Math.ceil(2 - Math.log10(range)));
  if (size < 0.1) return String(Number(value.toPrecision(4)));
  return value.toFixed(Math.max(fine, size < 1 ? 3 : 4 - String(Math.floor(size)).length));
}

function nearest(points, step) {
  let low = 0, high = points.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < step) low = middle + 1; else high = middle;
  }
  const before = points[low - 1];
  return before && step - before[0] <= points[low][0] - step ? before : points[low];
}

const figures = [...document.querySelectorAll('figure[data-plot]')].map(element => {
  const figure = {...JSON.parse(element.dataset.plot), element};
  figure.plot = element.querySelector('.plot');
  figure.values = [...element.querySelectorAll('.legend b')];
  figure.names = [...element.querySelectorAll('.legend span')].map(name => name.textContent);
  figure.last = figure.values.map(value => value.textContent);
  figure.at = element.querySelector('.at');
  figure.cursor = document.createElement('div');
  figure.cursor.className = 'cursor';
  figure.cursor.hidden = true;
  for (const curve of figure.curves) {
    curve.dot = document.createElement('i');
    curve.dot.className = curve.style;
    figure.cursor.append(curve.dot);
  }
  figure.plot.append(figure.cursor);
  return figure;
});
const scrub = document.querySelector('.scrub input');

function place(figure, value) {
  const view = figure.element.dataset.view;
  const along = view === 'log' ? Math.log : x => x;
  const [low, high] = figure.views[view].map(along);
  return (along(value) - low) / (high - low);
}

function show(step) {
  const said = [];
  for (const figure of figures) {
    const [low, high] = figure.steps, ends = figure.views[figure.element.dataset.view];
    figure.cursor.hidden = false;
    figure.cursor.style.left = 100 * (step - low) / (high - low) + '%';
    figure.at.textContent = 'step ' + Math.round(step).toLocaleString('en');
    figure.curves.forEach((curve, index) => {
      if (!curve.points.length) return;
      const [at, value] = nearest(curve.points, step);
      const read = text(value, ends[1] - ends[0]) + (Math.round(step) === at ? '' : ' (at ' + at.toLocaleString('en') + ')');
      figure.values[index].textContent = read;
      curve.dot.style.bottom = 100 * place(figure, value) + '%';
      curve.dot.style.marginLeft = (at - step) / (high - low) * figure.plot.clientWidth + 'px';
      if (figure === figures[0]) said.push(figure.names[index] + ' ' + read);
    });
  }
  if (scrub) {
    scrub.value = step;
    scrub.setAttribute('aria-valuetext', 'step ' + Math.round(step) + ': ' + said.join(', '));
  }
}

function rest() {
  for (const figure of figures) {
    figure.cursor.hidden = true;
    figure.at.textContent = 'last';
    figure.values.forEach((value, index) => { value.textContent = figure.last[index]; });
  }
}

for (const figure of figures) {
  figure.plot.addEventListener('pointermove', event => {
    const box = figure.plot.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const step = figure.steps[0] + share * (figure.steps[1] - figure.steps[0]);
    show(figure.curves[0].points.length ? nearest(figure.curves[0].points, step)[0] : step);
  });
  figure.plot.addEventListener('pointerleave', rest);
  for (const choice of figure.element.querySelectorAll('.toggle input')) {
    choice.addEventListener('change', () => { figure.element.dataset.view = choice.value; rest(); });
  }
}
if (scrub) {
  scrub.addEventListener('input', () => show(Number(scrub.value)));
  scrub.addEventListener('blur', rest);
}

const filter = document.getElementById('filter'), mine = document.getElementById('mine');
function sift() {
  const wanted = filter.value.trim().toLowerCase();
  for (const row of document.querySelectorAll('.config tbody tr')) {
    const found = row.textContent.toLowerCase().includes(wanted);
    row.hidden = !found || (mine.checked && !row.classList.contains('mine'));
  }
}
if (filter) { filter.addEventListener('input', sift); mine.addEventListener('change', sift); }

const copy = document.getElementById('copy');
if (copy) copy.addEventListener('click', async () => {
  const command = document.getElementById('command');
  try {
    await navigator.clipboard.writeText(command.textContent);
    copy.textContent = 'Copied';
  } catch {
    getSelection().selectAllChildren(command);
    copy.textContent = 'Selected';
  }
  setTimeout(() => { copy.textContent = 'Copy'; }, 2000);
});
