// Small helpers. Text goes into the page as text, never as HTML.

export const $ = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name.includes("-") || name === "scope" || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// A table's row. The roles stay what they are where a narrow page stacks the cells; each cell then
// shows its column's title.
export function cells(columns, row, ...values) {
  return element(
    "tr",
    { role: "row" },
    element("th", { scope: "row", role: "rowheader" }, ...[row].flat()),
    ...values.map((value, index) =>
      element("td", { role: "cell", "data-title": columns[index + 1] }, element("div", {}, ...[value].flat())),
    ),
  );
}

export function titles(table) {
  return [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
}

export function chip(text, level) {
  return element("span", { class: `chip ${level}` }, text);
}

// Writing the same text again would make a screen reader say it again.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function show(node, visible) {
  node.hidden = !visible;
}

export function problem(node, text) {
  say(node, text ?? "");
  show(node, Boolean(text));
}

export async function ask(path) {
  try {
    const answer = await fetch(path, { headers: { Accept: "application/json" } });
    return await answer.json();
  } catch {
    return { problem: "the dashboard does not answer; is koprogo dashboard still running?" };
  }
}

export async function post(path, body) {
  try {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify(body),
    });
    const said = await answer.json();
    return answer.ok ? said : { problem: said.problem ?? `HTTP ${answer.status}` };
  } catch {
    return { problem: "the dashboard does not answer; is koprogo dashboard still running?" };
  }
}

export function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

const clock = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });

export function moment(value) {
  return clock.format(new Date(value));
}
