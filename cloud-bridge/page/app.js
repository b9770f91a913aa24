"use strict";
// The bridge's page. Everything it shows comes from the REST API and the WebSocket of the same host;
// the key stays in sessionStorage of this tab.

const KEY = "ridgeway-key";
const MAX_EVENTS = 200;
const $ = (id) => document.getElementById(id);
const state = { key: null, socket: null, retry: 1000, timer: null, agents: new Map(), paused: false, held: [], enrol: null, seen: new Set() };

function element(tag, options = {}, ...children) {
  const { text, ...rest } = options;
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(rest)) {
    if (name === "state") node.dataset.state = value;
    else if (name === "class") node.className = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

async function api(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { "X-API-Key": state.key, "Content-Type": "application/json" } });
  } catch {
    throw new Error("The bridge does not answer. Is it running?");
  }
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const error = new Error(body.message || `The bridge answered ${response.status}.`);
  error.status = response.status;
  throw error;
}

function problem(text) {
  $("problem").textContent = text || "";
  $("problem").hidden = !text;
}

// Signing in and out.

async function signIn(key, remembered) {
  state.key = key.trim();
  $("sign-in-error").hidden = true;
  try {
    const agents = await api("/api/agents");
    sessionStorage.setItem(KEY, state.key);
    showWork(agents);
  } catch (error) {
    if (error.status === 401) sessionStorage.removeItem(KEY);
    showSignIn(remembered && error.status === 401 ? "" : error.status === 401 ? "This key is not known here." : error.message);
  }
}

function showSignIn(message) {
  closeSocket();
  $("work").hidden = true;
  $("sign-out").hidden = true;
  $("connection").hidden = true;
  $("sign-in").hidden = false;
  $("sign-in-error").textContent = message || "";
  $("sign-in-error").hidden = !message;
  $("key").focus();
}

async function showWork(agents) {
  $("sign-in").hidden = true;
  $("work").hidden = false;
  $("sign-out").hidden = false;
  $("connection").hidden = false;
  takeAgents(agents);
  openSocket();
  try {
    await latestEvents();
  } catch (error) {
    problem(error.message);
  }
}

function signOut() {
  sessionStorage.removeItem(KEY);
  Object.assign(state, { key: null, enrol: null, held: [] });
  state.agents.clear();
  state.seen.clear();
  $("events").replaceChildren();
  $("no-events").hidden = false;
  $("progress").hidden = true;
  $("key").value = "";
  setEnrolling(false);
  problem("");
  showSignIn("");
}

// The live connection.

function openSocket() {
  closeSocket();
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  state.socket = socket;
  connection("wait", "connecting…");
  socket.onopen = () => socket.send(JSON.stringify({ type: "auth", apiKey: state.key }));
  socket.onmessage = (message) => received(JSON.parse(message.data));
  socket.onclose = () => {
    if (state.socket !== socket) return;
    connection("off", "not connected");
    state.timer = setTimeout(reconnect, state.retry);
    state.retry = Math.min(state.retry * 2, 30000);
  };
}

async function reconnect() {
  if (!state.key) return;
  openSocket();
}

function closeSocket() {
  clearTimeout(state.timer);
  const socket = state.socket;
  state.socket = null;
  if (socket) socket.close();
}

function connection(kind, text) {
  $("connection").dataset.state = kind;
  $("connection").textContent = text;
}

async function received(message) {
  switch (message.type) {
    case "auth:success":
      state.socket.send(JSON.stringify({ type: "subscribe" }));
      break;
    case "auth:error":
      sessionStorage.removeItem(KEY);
      showSignIn("This key is not known any more.");
      break;
    case "subscribe:success":
      connection("on", "live");
      state.retry = 1000;
      problem("");
      await refresh();
      break;
    case "event":
      take(message.data);
      follow(message);
      break;
    case "command:result":
      if (state.enrol && message.commandId === state.enrol.id) finish(message);
      break;
    case "agent:online":
    case "agent:offline":
    case "agent:info":
      state.agents.set(message.agentId, message.agent);
      showAgents();
      break;
    case "ping":
      state.socket.send(JSON.stringify({ type: "pong" }));
      break;
  }
}

async function refresh() {
  try {
    takeAgents(await api("/api/agents"));
    if (state.enrol && state.enrol.asked) {
      const command = await api(`/api/commands/${encodeURIComponent(state.enrol.id)}`);
      if (command.finishedAt) finish(command);
    }
  } catch (error) {
    problem(error.message);
  }
}

// Gateways.

function takeAgents(agents) {
  state.agents = new Map(agents.map((agent) => [agent.id, agent]));
  showAgents();
}

function showAgents() {
  const list = [...state.agents.values()].sort((a, b) => a.id.localeCompare(b.id));
  if (list.length === 0) {
    $("agents").replaceChildren(element("p", { class: "card hint", text: "No gateway is configured. Add one under [[gateways]] in the bridge's configuration." }));
  } else {
    $("agents").replaceChildren(...list.map(agentCard));
  }
  showReaders(list);
}

function agentCard(agent) {
  const readers = (agent.devices || []).map((device) => element("li", { class: "reader" },
    element("div", {}, element("span", { text: device.id }), element("small", { text: [device.model, device.serialNumber].filter(Boolean).join(" · ") })),
    element("span", { class: "pill", state: device.status, text: device.status })));
  const queued = agent.queued === null || agent.queued === undefined ? "" : agent.queued === 0 ? "nothing queued" : `${agent.queued} queued`;
  const since = agent.since ? `${agent.status} since ${moment(agent.since)}` : "never seen";
  return element("article", { class: "card agent" },
    element("div", { class: "agent-head" },
      element("div", {}, element("h3", { text: agent.name }), element("p", { class: "hint", text: [agent.id === agent.name ? "" : agent.id, since, queued].filter(Boolean).join(" · ") })),
      element("span", { class: "pill", state: agent.status, text: agent.status })),
    ...(agent.problem ? [element("p", { class: "notice bad", text: `Since ${moment(agent.problem.since)}: ${agent.problem.message}` })] : []),
    element("ul", { class: "readers" }, ...readers));
}

function showReaders(list) {
  const select = $("reader");
  const chosen = select.value;
  const options = list.flatMap((agent) => (agent.devices || []).map((device) => {
    const option = element("option", { value: `${agent.id}/${device.id}`, text: `${agent.name} · ${device.id}` });
    option.disabled = agent.status !== "online" || device.status === "disconnected";
    return option;
  }));
  if (options.length === 0) options.push(element("option", { value: "", text: "no reader yet" }));
  select.replaceChildren(...options);
  if ([...select.options].some((option) => option.value === chosen && !option.disabled)) select.value = chosen;
  else select.value = ([...select.options].find((option) => !option.disabled) || { value: "" }).value;
  $("enrol-start").disabled = !select.value || Boolean(state.enrol);
}

// What an event says about a reader shows at once.
function noteReader(event) {
  const agent = state.agents.get(event.gateway);
  if (!agent) return;
  agent.devices = agent.devices || [];
  const device = agent.devices.find((known) => known.id === event.deviceId);
  if (event.type === "device:status" && device) device.status = event.status;
  else if (event.type === "device:disconnected" && device) device.status = "disconnected";
  else if (event.type === "device:connected" && device) device.status = event.device.status;
  else if (event.type === "device:connected") agent.devices.push(event.device);
  else return;
  showAgents();
}

// Events.

async function latestEvents() {
  const page = await api(`/api/events?last=${MAX_EVENTS}`);
  for (const event of page.events) show(event);
}

function take(event) {
  noteReader(event);
  if (state.paused) {
    state.held.push(event);
    state.held.splice(0, Math.max(0, state.held.length - MAX_EVENTS));
    $("pause").textContent = `Resume (${state.held.length})`;
  } else {
    show(event);
  }
}

function show(event) {
  if (state.seen.has(event.id)) return;
  state.seen.add(event.id);
  const [text, kind] = describe(event);
  const where = [(state.agents.get(event.gateway) || {}).name || event.gateway, event.deviceId, `${event.lane} ${event.seq}`].filter(Boolean).join(" · ");
  const row = element("li", { title: event.id },
    element("time", { datetime: event.timestamp, text: moment(event.timestamp) }),
    element("span", { class: "what", state: kind, text }),
    element("span", { class: "where", text: where }));
  const list = $("events");
  // Newest first, by the ids' own order.
  let next = list.firstElementChild;
  while (next && next.title > event.id) next = next.nextElementSibling;
  list.insertBefore(row, next);
  while (list.childElementCount > MAX_EVENTS) {
    state.seen.delete(list.lastElementChild.title);
    list.lastElementChild.remove();
  }
  $("no-events").hidden = true;
}

function describe(event) {
  const percent = event.confidence === undefined ? "" : ` (${event.confidence} %)`;
  switch (event.type) {
    case "device:connected": return ["Reader connected", "good"];
    case "device:disconnected": return ["Reader disconnected", "bad"];
    case "device:status": return [`Reader ${event.previousStatus} → ${event.status}`, ""];
    case "fingerprint:detected": return [`Finger detected, quality ${event.quality}`, ""];
    case "fingerprint:enrolled": return [`Enrolled ${event.userId}, quality ${event.quality}`, "good"];
    case "scan:started": return ["Scan started", ""];
    case "scan:progress": return [event.message, ""];
    case "scan:complete": return [`Scan complete, quality ${event.quality}`, ""];
    case "scan:error": return [`Scan failed: ${event.message}`, "bad"];
    case "scan:timeout": return ["No finger in time", "bad"];
    case "scan:stopped": return ["Scan stopped", ""];
    case "verification:result": return [event.match ? `Verified ${event.userId}${percent}` : `Not ${event.userId}`, event.match ? "good" : "bad"];
    case "identification:searching": return [`Searching, ${event.progress} %`, ""];
    case "identification:result": return event.match ? [`Identified ${event.userId}${percent}`, "good"] : ["Nobody known", "bad"];
    case "access:granted": return [`Access granted to ${event.userId}`, "good"];
    case "access:denied": return [`Access denied: ${event.reason}`, "bad"];
    case "service:status": return [`Gateway ${event.status}, version ${event.version}`, ""];
    case "journal:gap": return [`Events lost: ${event.from} to ${event.to} (${event.reason})`, "bad"];
    case "command:result": return [`Command ${event.command} ${event.status}`, event.status === "completed" ? "good" : "bad"];
    default: return [event.type, ""];
  }
}

function moment(text) {
  const time = new Date(text);
  const clock = time.toLocaleTimeString([], { hour12: false });
  return time.toDateString() === new Date().toDateString() ? clock : `${time.toLocaleDateString()} ${clock}`;
}

function pause() {
  state.paused = !state.paused;
  $("pause").setAttribute("aria-pressed", String(state.paused));
  $("pause").textContent = state.paused ? "Resume" : "Pause";
  if (!state.paused) state.held.splice(0).forEach(show);
}

// Enrolling.

async function enrol(submitted) {
  submitted.preventDefault();
  const [agent, device] = $("reader").value.split("/");
  const user = $("user").value.trim();
  // Named here, because its first events can come before the answer to the request.
  const id = `page-${[...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
  state.enrol = { id, agent, user };
  setEnrolling(true);
  progress(0, "Asking the gateway…", "");
  try {
    await api(`/api/agents/${agent}/commands`, { method: "POST", body: JSON.stringify({ id, command: "enroll", params: { userId: user, deviceId: device } }) });
    if (state.enrol) state.enrol.asked = true;
    await refresh();
  } catch (error) {
    finish({ status: "failed", error: { message: error.message } });
  }
}

async function cancel() {
  if (!state.enrol) return;
  $("enrol-cancel").disabled = true;
  try {
    const command = await api(`/api/commands/${encodeURIComponent(state.enrol.id)}/cancel`, { method: "POST" });
    if (command.finishedAt) finish(command);
  } catch (error) {
    problem(error.message);
  }
}

function follow(message) {
  const event = message.data;
  if (!state.enrol || !event.commandId || event.commandId !== state.enrol.id) return;
  if (event.type === "scan:progress") {
    const next = event.scansCompleted + 1;
    const same = state.enrol.done === event.scansCompleted && event.scansCompleted > 0;
    const lift = event.scansCompleted > 0 ? "Lift, then place" : "Place";
    progress(event.scansCompleted, next > event.scansRequired ? "Comparing the placements…" : `${lift} finger ${next} of ${event.scansRequired}`, same || event.quality === undefined ? event.message : `Quality ${event.quality}`);
    state.enrol.done = event.scansCompleted;
  } else if (event.type === "fingerprint:detected") {
    $("progress-detail").textContent = `Finger seen, quality ${event.quality}`;
  } else if (event.type === "scan:complete") {
    progress(3, "Storing…", "");
  }
}

function progress(done, text, detail, kind) {
  $("progress").hidden = false;
  [...$("fingers").children].forEach((finger, index) => {
    finger.dataset.state = index < done ? "done" : kind === "bad" ? "failed" : index === done ? "now" : "";
  });
  $("progress-text").textContent = text;
  $("progress-text").dataset.state = kind || "";
  $("progress-detail").textContent = detail || "";
}

function finish(command) {
  if (!state.enrol) return;
  const user = state.enrol.user;
  const done = state.enrol.done || 0;
  state.enrol = null;
  if (command.status === "completed") {
    const quality = command.result && command.result.quality;
    progress(3, `${user} is enrolled`, quality === undefined || quality === null ? "" : `Quality ${quality}`, "good");
  } else {
    const reason = command.error ? command.error.message : "";
    const words = { expired: "The gateway was not reached in time", timeout: "The gateway did not finish in time", cancelled: "Cancelled" };
    progress(done, words[command.status] || "Enrolment failed", reason, "bad");
  }
  setEnrolling(false);
}

function setEnrolling(running) {
  $("enrol-start").disabled = running || !$("reader").value;
  $("enrol-cancel").hidden = !running;
  $("enrol-cancel").disabled = false;
  $("user").disabled = running;
  $("reader").disabled = running;
}

$("sign-in-form").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  signIn($("key").value, false);
});
$("sign-out").addEventListener("click", signOut);
$("pause").addEventListener("click", pause);
$("enrol-form").addEventListener("submit", enrol);
$("enrol-cancel").addEventListener("click", cancel);
// Probes carry queue lengths, which no message announces.
setInterval(() => state.socket && state.socket.readyState === WebSocket.OPEN && refresh(), 15000);
fetch("/health").then((answer) => answer.json()).then((health) => { $("bridge-name").textContent = health.name; }).catch(() => {});

const remembered = sessionStorage.getItem(KEY);
if (remembered) signIn(remembered, true);
else showSignIn("");
