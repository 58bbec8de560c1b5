// Asks the API for its health every ten seconds and says what came back.
const api = (window.__ENV__ && window.__ENV__.API_URL) || "";
const show = (id, text, kind) => {
  const place = document.getElementById(id);
  place.textContent = text;
  place.className = kind || "";
};

async function ask() {
  const began = performance.now();
  try {
    const response = await fetch(`${api.replace(/\/+$/, "")}/health`, { cache: "no-store" });
    const text = await response.text();
    const took = `${Math.round(performance.now() - began)} ms`;
    show("health", `${response.ok ? "healthy" : "unhealthy"} (${response.status}, ${took})`, response.ok ? "good" : "bad");
    show("answer", text.slice(0, 500));
  } catch (error) {
    show("health", "no answer", "bad");
    show("answer", String(error));
  }
}

show("url", api || "PUBLIC_API_URL is not set");
if (api) { ask(); setInterval(ask, 10000); } else { show("health", "unknown"); }
