// The page of `notihub up --demo` with two inboxes. The link that the command prints carries a token of the partner
// "demo" behind its #, which a browser does not send. A page for real users never has a partner's token: its server
// signs one for each user.
"use strict";

const partner = new URLSearchParams(location.hash.slice(1)).get("token");
const form = document.querySelector("form");
const status = form.querySelector("[role=status]");
document.querySelector("[data-home]").textContent = location.origin;

async function call(path, body) {
  const headers = { authorization: `Bearer ${partner}`, "content-type": "application/json" };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  const read = await answer.json();
  if (!answer.ok) throw new Error(read.detail ?? `status ${answer.status}`);
  return read;
}

async function signIn(inbox) {
  try {
    const token = await call(`/v1/users/${inbox.dataset.user}/token`, {});
    inbox.setAttribute("token", token.accessToken);
  } catch (error) {
    status.textContent = `${error.message} Open the link that notihub up --demo printed last.`;
  }
}

const inboxes = [...document.querySelectorAll("notihub-inbox")];
inboxes.forEach((inbox) => {
  inbox.addEventListener("notihub-token-expired", () => setTimeout(signIn, 1000, inbox));
  signIn(inbox);
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { user, title, body } = Object.fromEntries(new FormData(form));
  const users = user ? [user] : inboxes.map((inbox) => inbox.dataset.user);
  const message = {
    type: "DEMO",
    clientMsgId: crypto.randomUUID(),
    recipients: users.map((id) => ({ id })),
    channels: [{ channel: "INAPP", subject: title, body }],
  };
  try {
    status.textContent = `Accepted as ${(await call("/v1/messages", message)).messageId}.`;
  } catch (error) {
    status.textContent = error.message;
  }
});
