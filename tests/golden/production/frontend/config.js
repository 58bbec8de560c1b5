// Written by koprogo-deploy, in place of the file that the image writes at its start.
window.__ENV__ = { API_URL: "https://api.koprogo.be/api/v1" };
